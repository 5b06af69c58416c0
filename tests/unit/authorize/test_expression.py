"""What an expression refers to, as far as the CEL library does not tell."""

import pytest

from broker.authorize.expression import MAX_TOKENS, read_names


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
