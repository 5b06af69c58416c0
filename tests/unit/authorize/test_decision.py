"""The decision, and its explanation by the same checks (threats 18, 22, 26)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.authorize import Ask, CompiledScope, Step, TaskView, decide, explain
from broker.authorize.condition import Condition
from broker.authorize.sight import Sight
from broker.document import Limits
from broker.errors import (
    BrokerError,
    Locked,
    ParametersInvalid,
    ScopeDenied,
    ScopeNotDeclared,
    TaskEnded,
    TtlExceeded,
)
from broker.model import JsonValue, Lock, LockKind
from tests.unit.authorize.makers import AGENT, ISSUER, NOW, Plain, ask, lock, oidc, scope, svid, task

STRANGER = svid("spiffe://example.org/strangers/a")
SECONDS = timedelta(seconds=1)
MINUTES = timedelta(minutes=1)


def refusal(request: Ask, compiled: CompiledScope | None, *locks: Lock) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        decide(request, compiled, locks)
    return caught.value


def test_a_grant_says_what_was_granted_and_why() -> None:
    compiled = scope(
        who=[{"spiffeId": "spiffe://example.org/others/*"}, {"spiffeId": "spiffe://example.org/agents/*"}],
        limits={"livePerTask": 2},
        parameters={"type": "object", "properties": {"table": {"type": "string"}}},
    )
    grant = decide(ask(parameters={"table": "a"}), compiled, ())
    assert grant.scope == "reports-read"
    assert grant.version == 3
    assert grant.parameters == {"table": "a"}
    assert grant.ttl == 5 * MINUTES
    assert grant.max_ttl == 15 * MINUTES
    assert grant.mapping == Plain(kind="plain")
    assert grant.limits == Limits(live_per_task=2)
    assert grant.rule == "spec.who[1]"


@pytest.mark.parametrize(
    ("ttl", "left", "granted", "most"),
    [
        (None, 60 * MINUTES, 5 * MINUTES, 15 * MINUTES),
        (15 * MINUTES, 60 * MINUTES, 15 * MINUTES, 15 * MINUTES),
        (1 * SECONDS, 60 * MINUTES, 1 * SECONDS, 15 * MINUTES),
        (10 * MINUTES, 7 * MINUTES, 7 * MINUTES, 7 * MINUTES),
        (None, 7 * MINUTES, 5 * MINUTES, 7 * MINUTES),
        (None, 1 * SECONDS, 1 * SECONDS, 1 * SECONDS),
    ],
)
def test_the_deadline_cuts_the_time_to_live(
    ttl: timedelta | None, left: timedelta, granted: timedelta, most: timedelta
) -> None:
    grant = decide(ask(ttl=ttl, for_task=task(left=left)), scope(), ())
    assert (grant.ttl, grant.max_ttl) == (granted, most)


@pytest.mark.parametrize("ttl", [15 * MINUTES + timedelta(microseconds=1), 24 * 60 * MINUTES])
def test_more_than_the_maximum_is_refused_and_not_cut(ttl: timedelta) -> None:
    error = refusal(ask(ttl=ttl), scope())
    assert isinstance(error, TtlExceeded)
    assert [item.field for item in error.violations] == ["ttl"]
    assert error.violations[0].description == "must be more than 0 and at most 900 seconds"


@pytest.mark.parametrize("ttl", [timedelta(0), -SECONDS])
def test_no_time_at_all_is_refused(ttl: timedelta) -> None:
    assert isinstance(refusal(ask(ttl=ttl), scope()), TtlExceeded)


@pytest.mark.parametrize("left", [timedelta(0), -SECONDS])
def test_nothing_is_granted_past_the_deadline(left: timedelta) -> None:
    assert isinstance(refusal(ask(for_task=task(left=left)), scope()), TaskEnded)


def test_declared_scopes_are_the_only_ones() -> None:
    assert decide(ask(for_task=task(("other", "reports-read"))), scope(), ()).scope == "reports-read"
    undeclared = ask(for_task=task(("other",)))
    assert isinstance(refusal(undeclared, scope()), ScopeNotDeclared)
    assert isinstance(refusal(undeclared, None), ScopeNotDeclared)


def test_wrong_parameters_are_named() -> None:
    error = refusal(ask(parameters={"a": 1}), scope(parameters={"type": "object", "additionalProperties": False}))
    assert isinstance(error, ParametersInvalid)
    assert [item.field for item in error.violations] == ["parameters.a"]


@pytest.mark.parametrize(
    "when",
    [
        "agent.uri == 'spiffe://example.org/agents/reporter' && agent.subject == agent.uri",
        "agent.issuer == 'spiffe://example.org' && agent.trust_domain == 'example.org'",
        "agent.spiffe_id == agent.uri && agent.kind == 'jwt_svid'",
        "agent.claims.team == 'x'",
        "task.purpose == 'write the report' && task.labels.env == 'prod'",
        "size(task.declared_scopes) == 1 && 'reports-read' in task.declared_scopes",
        "params.table == 'a' && params.limit == 5",
        "request.ttl_seconds == 300",
        "request.time == timestamp('2026-01-01T12:00:00Z')",
    ],
)
def test_what_conditions_see(when: str) -> None:
    request = ask(
        svid(claims={"team": "x"}),
        parameters={"table": "a", "limit": 5},
        for_task=task(("reports-read",), {"env": "prod"}),
    )
    assert decide(request, scope(when=when), ()).version == 3


@pytest.mark.parametrize(
    "when",
    [
        "agent.uri == 'https://issuer.example#repo/main' && agent.issuer == 'https://issuer.example'",
        "agent.subject == 'repo/main' && agent.kind == 'oidc'",
        "agent.spiffe_id == null && agent.trust_domain == null",
    ],
)
def test_what_conditions_see_of_an_oidc_agent(when: str) -> None:
    compiled = scope(who=[{"issuer": ISSUER, "subject": "repo/*"}], when=when)
    assert decide(ask(oidc()), compiled, ()).rule == "spec.who[0]"


CLAIMS: dict[str, JsonValue] = {"team": "x", "groups": ["a", "b"], "nested": {"deep": True}, "size": 3}

ABOUT_AGENTS = [
    "agent.claims.team == 'x'",
    "agent.claims.missing == 'x'",
    "has(agent.claims.team) && !has(agent.claims.missing)",
    "!has(agent.claims.team)",
    "agent.claims.nested.deep",
    "agent.claims.groups.exists(g, g == 'b')",
    "agent.claims.size == 3 && agent.claims.size() == 4",
    "agent.size() == 7 && agent.claims.size() == 4",
    "agent.exists(k, k == 'uri') && agent.exists(k, k == 'trust_domain')",
    "'team' in agent.claims && agent.claims['team'] == 'x'",
    "[agent].exists(a, a.claims.team == 'x' && a.kind == 'jwt_svid')",
    "agent.claims == {'team': 'x'} || agent.claims.team == 'y'",
    "agent . claims . team == 'x'",
    "agent.claims.exists(name, name == 'nested')",
    "agent.claims.team == 'x' // && agent.claims.missing",
    "has(agent.spiffe_id) && agent.claims.filter(c, c.startsWith('t')).size() == 1",
]


@pytest.mark.parametrize("when", ABOUT_AGENTS)
def test_leaving_out_what_a_condition_does_not_mention_changes_nothing(when: str) -> None:
    request, compiled = ask(svid(claims=CLAIMS)), scope(when=when)
    everything = Sight(request.identity, request.task, {}, 5 * MINUTES, NOW)
    expected = "granted"
    try:
        Condition(when).check({"agent": everything.of("agent")})
    except ScopeDenied as denied:
        expected = denied.detail
    found = explain(request, compiled, ())
    assert found.steps[-1].rule == "spec.when"
    assert (found.steps[-1].detail if not found.allowed else "granted") == expected


def test_both_outcomes_are_among_these_conditions() -> None:
    allowed = {explain(ask(svid(claims=CLAIMS)), scope(when=when), ()).allowed for when in ABOUT_AGENTS}
    assert allowed == {True, False}


def test_conditions_see_the_time_to_live_that_would_be_granted() -> None:
    compiled = scope(when="request.ttl_seconds == 8")
    assert decide(ask(for_task=task(left=timedelta(seconds=7.2))), compiled, ()).ttl == timedelta(seconds=7.2)


def test_claims_that_are_nested_too_deeply_are_not_looked_at() -> None:
    claim: JsonValue = "x"
    for _ in range(100_000):
        claim = [claim]
    error = refusal(ask(svid(claims={"a": claim})), scope(when="agent.claims.a != ''"))
    assert isinstance(error, ScopeDenied)
    assert "levels deep" in error.detail


DENIALS: dict[str, Callable[[], BrokerError]] = {
    "there is no scope 'reports-read'": lambda: refusal(ask(), None),
    "no entry means spiffe://example.org/strangers/a": lambda: refusal(ask(STRANGER), scope()),
    "the condition is not true": lambda: refusal(ask(), scope(when="false")),
    "the condition failed: KeyError": lambda: refusal(ask(), scope(when="params.a == 1")),
    "lock lock-1 holds": lambda: refusal(ask(STRANGER), scope(), lock(LockKind.SCOPE, "reports-read")),
    "lock lock-1 holds: ": lambda: refusal(ask(STRANGER), None, lock(LockKind.SCOPE, "reports-read")),
    "no entry means": lambda: refusal(
        ask(STRANGER, parameters={"a": 1}, ttl=99 * MINUTES),
        scope(parameters={"type": "object", "additionalProperties": False}),
    ),
}


@pytest.mark.parametrize("detail", DENIALS)
def test_denials_are_alike_and_the_detail_tells_them_apart(detail: str) -> None:
    error = DENIALS[detail]()
    assert type(error) is ScopeDenied
    told = (error.reason, error.message, error.violations, error.metadata, error.retry_after)
    assert told == ("SCOPE_DENIED", ScopeDenied.message, (), {}, None)
    assert error.detail.startswith(detail)
    assert error.__cause__ is None


@pytest.mark.parametrize(
    "held",
    [
        lock(LockKind.AGENT, AGENT),
        lock(LockKind.AGENT_PATTERN, "spiffe://example.org/**"),
        lock(LockKind.TASK, "task-1"),
        lock(LockKind.SCOPE, "reports-read"),
    ],
    ids=lambda held: held.kind.value,
)
def test_locks_come_first_and_tell_no_more_than_that(held: Lock) -> None:
    error = refusal(ask(parameters={"a": 1}, ttl=99 * MINUTES, for_task=task(("other",))), scope(), held)
    assert type(error) is Locked
    assert (error.message, error.violations, error.metadata) == (Locked.message, (), {})
    assert error.detail == "lock lock-1 holds: it misbehaves"


@pytest.mark.parametrize("compiled", [scope(), None], ids=["there", "not there"])
def test_a_locked_agent_is_told_the_same_whatever_scope_it_asks_for(compiled: CompiledScope | None) -> None:
    on_scope = lock(LockKind.SCOPE, "reports-read", lock_id="lock-2")
    on_agent = lock(LockKind.AGENT, STRANGER.uri)
    error = refusal(ask(STRANGER), compiled, on_scope, on_agent)
    assert type(error) is Locked
    assert error.detail.startswith("lock lock-1 ")


def test_other_locks_do_not_hold() -> None:
    elsewhere = [lock(LockKind.AGENT, STRANGER.uri), lock(LockKind.TASK, "task-2"), lock(LockKind.SCOPE, "other")]
    expired = lock(LockKind.AGENT, AGENT, expires_at=NOW)
    assert decide(ask(), scope(), [*elsewhere, expired]).rule == "spec.who[0]"


def test_a_scope_cannot_decide_about_another() -> None:
    with pytest.raises(RuntimeError, match="cannot decide"):
        decide(ask(name="other"), scope("reports-read"), ())


def test_an_explanation_of_a_grant_names_every_rule_in_order() -> None:
    compiled = scope(who=[{"issuer": ISSUER, "subject": "a"}, {"spiffeId": AGENT}], when="true")
    found = explain(ask(), compiled, ())
    assert (found.allowed, found.reason, found.deciding_rule, found.scope_version) == (True, "", "spec.who[1]", 3)
    assert [(step.rule, step.passed) for step in found.steps] == [
        ("locks", True),
        ("declared", True),
        ("spec.who[0]", False),
        ("spec.who[1]", True),
        ("spec.parameters", True),
        ("spec.ttl", True),
        ("spec.when", True),
    ]
    assert all(step.detail for step in found.steps)


def test_an_explanation_leaves_out_a_condition_that_is_not_there() -> None:
    assert [step.rule for step in explain(ask(), scope(), ()).steps][-1] == "spec.ttl"


STRICT = scope(parameters={"type": "object", "additionalProperties": False}, when="params == {'a': 1}")

EXPLAINED: list[tuple[Ask, CompiledScope | None, Lock | None, str, str, int]] = [
    (ask(), scope(), lock(LockKind.AGENT, AGENT), "LOCKED", "locks", 1),
    (ask(STRANGER), scope(), lock(LockKind.SCOPE, "reports-read"), "SCOPE_DENIED", "locks", 1),
    (ask(for_task=task(("other",))), scope(), None, "SCOPE_NOT_DECLARED", "declared", 2),
    (ask(), None, None, "SCOPE_DENIED", "scope", 3),
    (ask(STRANGER), scope(), None, "SCOPE_DENIED", "spec.who", 4),
    (ask(parameters={"a": 1}), STRICT, None, "PARAMETERS_INVALID", "spec.parameters", 4),
    (ask(ttl=16 * MINUTES), STRICT, None, "TTL_EXCEEDED", "spec.ttl", 5),
    (ask(for_task=task(left=-SECONDS)), STRICT, None, "TASK_ENDED", "spec.ttl", 5),
    (ask(), STRICT, None, "SCOPE_DENIED", "spec.when", 6),
]


@pytest.mark.parametrize(
    ("request_", "compiled", "held", "reason", "rule", "steps"), EXPLAINED, ids=[case[4] for case in EXPLAINED]
)
def test_an_explanation_ends_with_what_the_decision_refuses(
    request_: Ask, compiled: CompiledScope | None, held: Lock | None, reason: str, rule: str, steps: int
) -> None:
    locks = () if held is None else (held,)
    error = refusal(request_, compiled, *locks)
    found = explain(request_, compiled, locks)
    assert (found.allowed, found.reason, found.deciding_rule) == (False, reason, rule)
    assert found.reason == error.reason
    assert found.steps[-1] == Step(rule, False, error.detail)
    assert len(found.steps) == steps
    assert all(step.passed for step in found.steps[:-1] if not step.rule.startswith("spec.who["))
    assert found.scope_version == (None if compiled is None else 3)


def test_a_question_about_a_task_that_nobody_started() -> None:
    supposed: TaskView = replace(task(), id=None)
    held = lock(LockKind.TASK, "task-1")
    assert explain(ask(for_task=supposed), scope(), (held,)).allowed
