"""What an expression refers to, as far as the CEL library does not tell."""

import pytest

from broker.authorize.expression import MAX_TOKENS, AgentUses, read_agent_uses, read_names


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("true", set()),
        ("agent.uri == 'x'", {("agent", "uri")}),
        ("params.anything.goes", {("params", "anything")}),
        ("'a' in params", {("params", "")}),
        ("params['a']", {("params", "")}),
        ("params.size() > 0", {("params", "")}),
        ("request == request", {("request", "")}),
        ("has(agent.claims.team)", {("agent", "claims")}),
        ("task.labels.agent == task.purpose", {("task", "labels"), ("task", "purpose")}),
        ("request.time > timestamp('2026-01-01T00:00:00Z') // request.ttl_seconds", {("request", "time")}),
        ("agent . uri == task\n.\npurpose", {("agent", "uri"), ("task", "purpose")}),
        (
            r"'params\'x' == r'\' || \"params\" == '''it's params''' || b'params' == rb\"params\"".replace('\\"', '"'),
            set(),
        ),
        ('"""params "quoted" params""" == "// params"', set()),
        ("1.5e3 < 0x1fu", set()),
        ("{'a': agent.uri}", {("agent", "uri")}),
        (")]} == 1", set()),
    ],
)
def test_fields(source: str, fields: set[tuple[str, str]]) -> None:
    assert read_names(source).fields == fields


@pytest.mark.parametrize(
    ("source", "bound"),
    [
        ("params.tables.all(t, t.startsWith('rep_'))", {"t"}),
        ("[1].map(x, x > 0, x + 1).exists(y, y == 1)", {"x", "y"}),
        ("[[1]].all(x, x.exists(y, y == 1))", {"x", "y"}),
        ("[1].filter(x, true).size() == 1 && [1].exists_one(x, true) && [1].existsOne(z, true)", {"x", "z"}),
    ],
)
def test_macros_bind_names(source: str, bound: set[str]) -> None:
    assert read_names(source).bound == bound


def test_regexes() -> None:
    assert read_names("agent.uri.matches('^a$') || agent.uri.matches(r\"^b$\")").regexes == {"'^a$'", 'r"^b$"'}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("user.name == 'x'", "does not know 'user'; it can use agent, task, params, request"),
        ("Agent.uri == 'x'", "'Agent'"),
        ("agent.spiffeId == 'x'", "does not know agent.spiffeId; agent has claims, "),
        ("task.id == 'x'", "task.id"),
        ("!has(request.ttl)", "request.ttl"),
        ("[1].exists(x, x == 1) && x", "'x'"),
        ("x.exists(x, x == 1)", "'x'"),
        ("[1].exists(agent, true)", "must not use the name 'agent'"),
        ("exists([1], x, true)", "'x'"),
        ("type(params.a) == int", "'int'"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "must not nest macros"),
        ("agent.uri.matches(params.pattern)", "in quotes"),
        ("agent.uri.matches('^a' + params.b)", "in quotes"),
        ("agent.uri.matches()", "in quotes"),
        ("1+" * MAX_TOKENS + "1", "words and signs"),
        ("'unterminated agent", "'unterminated'"),
    ],
)
def test_refuses(source: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_names(source)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("source", "fields", "claims"),
    [
        ("true", set(), set()),
        ("agent.uri == 'spiffe://example.org/agents/a'", {"uri"}, set()),
        ("agent.claims.team == 'x' && agent.kind == 'oidc'", {"claims", "kind"}, {"team"}),
        ("!has(agent.claims.suspended) && agent.claims.team.startsWith('x')", {"claims"}, {"suspended", "team"}),
        ("agent.claims.a.b == 'agent.claims.c'", {"claims"}, {"a", "c"}),
        ("agent.uri.size() > 3", {"uri"}, set()),
    ],
)
def test_plain_uses_of_the_agent(source: str, fields: set[str], claims: set[str]) -> None:
    assert read_agent_uses(source) == AgentUses(frozenset(fields), frozenset(claims))


@pytest.mark.parametrize(
    "source",
    [
        "agent == agent",
        "agent['uri'] == 'x'",
        "agent.size() == 7",
        "agent.exists(k, k == 'uri')",
        "[agent].exists(a, a.claims.team == 'x')",
        "agent .claims.team == 'x'",
        "agent.\nclaims.team == 'x'",
        "agent.claims == {}",
        "has(agent.claims)",
        "size(agent.claims) == 1",
        "agent.claims.size() == 1",
        "agent.claims.size () == 1",
        "'team' in agent.claims",
        "agent.claims['team'] == 'x'",
        "agent.claims .team == 'x'",
        "agent.claims.exists(c, c == 'x')",
        "agent.claims.team == 'x' || 'team' in agent.claims",
        "agent.claims.team == 'x' || params.claims == 1",
        "agent.claims.team == 'x' || task.purpose == 'my agent'",
    ],
)
def test_any_other_use_of_the_agent_wants_everything(source: str) -> None:
    assert read_agent_uses(source) is None
