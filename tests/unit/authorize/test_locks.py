"""Which lock holds."""

from datetime import timedelta

import pytest

from broker.authorize import hold
from broker.model import Lock, LockKind
from tests.unit.authorize.makers import AGENT, NOW, lock

HOLDING = [
    lock(LockKind.AGENT, AGENT),
    lock(LockKind.AGENT_PATTERN, "spiffe://example.org/agents/*"),
    lock(LockKind.TASK, "task-1"),
    lock(LockKind.SCOPE, "reports-read"),
]
IDLE = [
    lock(LockKind.AGENT, AGENT + "-2"),
    lock(LockKind.AGENT, "spiffe://example.org/agents/*"),
    lock(LockKind.AGENT, "task-1"),
    lock(LockKind.AGENT_PATTERN, "spiffe://example.org/others/*"),
    lock(LockKind.TASK, AGENT),
    lock(LockKind.SCOPE, "reports"),
    lock(LockKind.SCOPE, "Reports-Read"),
]


def held(*locks: Lock) -> Lock | None:
    return hold(locks, agent=AGENT, task_id="task-1", scope="reports-read", now=NOW)


@pytest.mark.parametrize("one", HOLDING, ids=lambda one: one.kind.value)
def test_holds(one: Lock) -> None:
    assert held(*IDLE, one) is one


@pytest.mark.parametrize("one", IDLE, ids=lambda one: f"{one.kind.value} {one.target}")
def test_does_not_hold(one: Lock) -> None:
    assert held(one) is None


def test_what_is_not_there_is_not_held() -> None:
    assert hold(HOLDING[2:], agent=AGENT, task_id=None, scope=None, now=NOW) is None


def test_holds_until_it_expires() -> None:
    second = timedelta(seconds=1)
    assert held(lock(LockKind.AGENT, AGENT, expires_at=NOW - second)) is None
    assert held(lock(LockKind.AGENT, AGENT, expires_at=NOW)) is None
    assert held(lock(LockKind.AGENT, AGENT, expires_at=NOW + second)) is not None


def test_a_pattern_that_cannot_be_read_holds_everybody() -> None:
    assert held(lock(LockKind.AGENT_PATTERN, "not a pattern")) is not None
