"""Automatic locks: who is watched, what is counted, and what follows; on every database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from broker import errors
from broker.audit import Call
from broker.config import AutomaticLocks, Threshold
from broker.errors import StoreUnavailable
from broker.locks import Locks
from broker.model import Caller, EvidenceKind, Identity, Lock, LockKind, Outcome, Page, Role
from broker.store import Store, events, locks, policy
from broker.watch import MOST_AT_ONCE, MOST_WAITING, WRONG, Watch
from tests.contract.store.conftest import Issue
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import AGENT, a_lock, an_event
from tests.fixtures.store import NewStore

MINUTE = timedelta(minutes=1)
SETTINGS = AutomaticLocks(
    refusals=Threshold(count=3, within=MINUTE), issuances=Threshold(count=5, within=MINUTE), ttl=timedelta(minutes=15)
)
JUST_AN_AGENT = frozenset({Role.AGENT})


@dataclass
class Enforced:
    """Takes the place of what takes back."""

    locks: list[Lock] = field(default_factory=list)

    async def enforce(self, lock: Lock, cause: object) -> None:
        self.locks.append(lock)


class Watched:
    """A watch over a store, with what it did."""

    def __init__(self, store: Store, clock: FakeClock, settings: AutomaticLocks = SETTINGS) -> None:
        self.enforced = Enforced()
        self.store = store
        self.clock = clock
        self.watch = Watch(store, cast("Locks", self.enforced), clock, settings)

    async def refuse(self, times: int = 1, reason: str = "SCOPE_DENIED", agent: str = AGENT) -> None:
        """Refuse a request of an agent as the server does: the event is durable, then the watch is told."""
        given: dict[str, object] = {"type": "request.refused", "outcome": Outcome.DENIED, "reason": reason}
        given |= {"agent": agent, "actor": agent, "time": self.clock.now()}
        await self.store.write(lambda conn: events.append(conn, [an_event(**given) for _ in range(times)]))
        self.watch.note(a_call(agent), reason)

    async def in_force(self) -> list[Lock]:
        return await self.store.read(lambda conn: locks.in_force(conn, self.clock.now()))


def a_call(agent: str = AGENT, roles: frozenset[Role] | None = JUST_AN_AGENT, issuance_id: str | None = None) -> Call:
    now = datetime.now().astimezone()
    identity = Identity(agent, EvidenceKind.JWT_SVID, "spiffe://example.org", agent, {}, "00", now + MINUTE)
    caller = Caller(identity, roles) if roles is not None else None
    return Call(method="x", peer="", now=now, caller=caller, issuance_id=issuance_id)


@pytest.fixture
def watched(store: Store, clock: FakeClock) -> Watched:
    return Watched(store, clock)


def test_what_counts_are_refusals_for_what_the_agent_asked() -> None:
    everything = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    assert everything >= WRONG
    never = {"LOCKED", "OVERLOADED", "VAULT_UNAVAILABLE", "STORE_UNAVAILABLE", "CLOCK_UNCERTAIN", "MINT_FAILED"}
    assert not WRONG & (never | {reason for reason in everything if reason.startswith("EVIDENCE_")})


async def test_who_passes_the_threshold_is_locked_once(watched: Watched, clock: FakeClock) -> None:
    await watched.refuse(2)
    await watched.watch.turn()
    assert await watched.in_force() == []

    await watched.refuse()
    await watched.watch.turn()

    [lock] = await watched.in_force()
    assert (lock.kind, lock.target, lock.creator) == (LockKind.AGENT, AGENT, "broker")
    assert lock.reason == "automatic: 3 refusals within 60 seconds"
    assert lock.expires_at == clock.now() + timedelta(minutes=15)
    assert watched.enforced.locks == [lock]
    listed = await watched.store.read(lambda conn: events.page(conn, Page(filter='type = "lock.created"')))
    [event] = listed.items
    assert (event.actor, event.agent) == ("broker", AGENT)
    assert event.attributes["lock_id"] == lock.id
    assert (event.attributes["refusals"], event.attributes["within_seconds"]) == (3, 60)

    await watched.refuse(5)
    await watched.watch.turn()
    assert await watched.in_force() == [lock]


async def test_what_led_to_one_lock_leads_to_no_second(watched: Watched, clock: FakeClock) -> None:
    await watched.refuse(3)
    await watched.watch.turn()
    await watched.refuse(10, reason="LOCKED")
    clock.advance(SETTINGS.ttl)
    assert await watched.in_force() == []

    await watched.refuse(2)
    await watched.watch.turn()
    assert await watched.in_force() == []
    await watched.refuse()
    await watched.watch.turn()
    assert len(await watched.in_force()) == 1
    assert len(watched.enforced.locks) == 2


async def test_a_rate_of_issuances_locks(watched: Watched, issue: Issue) -> None:
    for _ in range(4):
        watched.watch.note(a_call(issuance_id=(await issue()).id), "")
    await watched.watch.turn()
    assert await watched.in_force() == []
    watched.watch.note(a_call(issuance_id=(await issue()).id), "")
    await watched.watch.turn()
    [lock] = await watched.in_force()
    assert lock.reason == "automatic: 5 issuances within 60 seconds"


@pytest.mark.parametrize(
    "call",
    [
        a_call(roles=None),
        a_call(roles=frozenset({Role.AGENT, Role.ADMIN})),
        a_call(roles=frozenset({Role.AGENT, Role.AUDITOR})),
        a_call(roles=frozenset({Role.APPROVER})),
        a_call(roles=frozenset()),
    ],
    ids=["nobody", "admin", "auditor", "approver", "without a role"],
)
async def test_only_agents_are_watched(watched: Watched, call: Call) -> None:
    await watched.refuse(10, agent="somebody else")
    await watched.store.write(
        lambda conn: events.append(conn, [an_event(outcome=Outcome.DENIED, reason="ROLE_REQUIRED") for _ in range(10)])
    )
    watched.watch.note(call, "ROLE_REQUIRED")
    await watched.watch.turn()
    assert {lock.target for lock in await watched.in_force()} == {"somebody else"}


async def test_absent_thresholds_lock_nobody(store: Store, clock: FakeClock, issue: Issue) -> None:
    watched = Watched(store, clock, AutomaticLocks())
    await watched.refuse(50)
    watched.watch.note(a_call(issuance_id=(await issue()).id), "")
    await watched.watch.turn()
    assert await watched.in_force() == []


async def test_an_agent_that_a_lock_holds_gets_no_other(watched: Watched, clock: FakeClock) -> None:
    lock = a_lock(kind=LockKind.AGENT_PATTERN, target="spiffe://example.org/*", created_at=clock.now())
    await watched.store.write(lambda conn: locks.insert(conn, lock))
    await watched.refuse(10)
    await watched.watch.turn()
    assert await watched.in_force() == [lock]
    assert watched.enforced.locks == []


async def test_looks_that_come_together_make_one_lock(new_store: NewStore, clock: FakeClock) -> None:
    one, two = Watched(await new_store(), clock), Watched(await new_store(), clock)
    await one.refuse(2)
    await two.refuse(2)
    before = await one.store.read(policy.revision)

    # Both have found that a lock is due before either makes it.
    judged = [await each.store.read(each.watch._judging(AGENT, clock.now())) for each in (one, two)]
    made = await asyncio.gather(*(each.store.write(each.watch._locking(AGENT, clock.now())) for each in (one, two)))

    assert None not in judged
    assert sum(lock is not None for lock in made) == 1
    assert len(await one.in_force()) == 1
    assert await one.store.read(policy.revision) == before + 1


async def test_a_database_that_is_away_forgets_nobody(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    await watched.refuse(3)

    async def away(work: Callable[[Any], Any]) -> Awaitable[Any]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(watched.store, "read", away)
        with pytest.raises(StoreUnavailable):
            await watched.watch.turn()
    await watched.watch.turn()
    assert len(await watched.in_force()) == 1


async def test_a_crowd_is_looked_at_in_parts_and_bounded(watched: Watched) -> None:
    await watched.refuse(3, agent="the first")
    for number in range(MOST_AT_ONCE):
        watched.watch.note(a_call(f"agent-{number}"), "SCOPE_DENIED")
    await watched.refuse(3, agent="the last")
    await watched.watch.turn()
    assert {lock.target for lock in await watched.in_force()} == {"the first"}
    await watched.watch.turn()
    assert {lock.target for lock in await watched.in_force()} == {"the first", "the last"}

    for number in range(MOST_WAITING + 10):
        watched.watch.note(a_call(f"agent-{number}"), "SCOPE_DENIED")
    assert len(watched.watch._noted) == MOST_WAITING
