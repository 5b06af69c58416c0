"""What a task declares is checked when it starts, as far as it can be."""

import pytest

from broker.authorize import CompiledScope, check_declared
from broker.errors import BrokerError, Locked, ScopeDenied
from broker.model import Identity, Lock, LockKind
from tests.unit.authorize.makers import AGENT, NOW, lock, scope, svid, task

STRANGER = svid("spiffe://example.org/strangers/a")


def check(*scopes: CompiledScope, locks: tuple[Lock, ...] = (), identity: Identity | None = None) -> None:
    known = {compiled.name: compiled for compiled in scopes}
    check_declared(identity or svid(), task(("first", "second")), known, locks, NOW)


def refusal(*scopes: CompiledScope, locks: tuple[Lock, ...] = (), identity: Identity | None = None) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        check(*scopes, locks=locks, identity=identity)
    return caught.value


def test_scopes_that_would_be_granted_pass() -> None:
    check(scope("first"), scope("second"))


def test_nothing_declared_is_nothing_to_check() -> None:
    check_declared(STRANGER, task(), {}, (), NOW)


@pytest.mark.parametrize(
    ("second", "detail"),
    [
        (None, "declared scope 'second': there is no scope 'second'"),
        (scope("second", who=[{"spiffeId": "spiffe://example.org/others/*"}]), "declared scope 'second': no entry"),
        (scope("second", when="task.purpose == 'x'"), "declared scope 'second': the condition is not true"),
        (scope("second", when="agent.claims.x == 'x'"), "declared scope 'second': the condition failed: KeyError"),
    ],
)
def test_refusals_are_alike_and_the_detail_names_the_scope(second: CompiledScope | None, detail: str) -> None:
    error = refusal(scope("first"), *([second] if second else []))
    assert type(error) is ScopeDenied
    assert (error.message, error.violations, error.metadata) == (ScopeDenied.message, (), {})
    assert error.detail.startswith(detail)
    assert error.__cause__ is None


@pytest.mark.parametrize("when", ["params.a == 1", "request.ttl_seconds < 0", "size(request) == 0"])
def test_conditions_on_what_is_not_known_yet_wait(when: str) -> None:
    check(scope("first"), scope("second", when=when))


def test_conditions_on_the_time_do_not_wait() -> None:
    check(scope("first"), scope("second", when="request.time == timestamp('2026-01-01T12:00:00Z')"))
    error = refusal(scope("first"), scope("second", when="request.time > timestamp('2027-01-01T00:00:00Z')"))
    assert error.reason == "SCOPE_DENIED"


def test_schema_and_time_to_live_wait() -> None:
    check(scope("first"), scope("second", parameters={"type": "object", "required": ["a"]}))


def test_locks_hold() -> None:
    assert type(refusal(scope("first"), scope("second"), locks=(lock(LockKind.AGENT, AGENT),))) is Locked
    assert type(refusal(scope("first"), scope("second"), locks=(lock(LockKind.SCOPE, "second"),))) is Locked


def test_a_lock_does_not_tell_strangers_that_its_scope_exists() -> None:
    error = refusal(locks=(lock(LockKind.SCOPE, "first"),), identity=STRANGER)
    assert type(error) is ScopeDenied
    assert error.detail == "declared scope 'first': lock lock-1 holds: it misbehaves"
