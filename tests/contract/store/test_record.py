"""What issuances write, several in one transaction, on every database."""

import asyncio
from dataclasses import replace

import pytest

from broker import record
from broker.audit import Call
from broker.authorize import Grant
from broker.document import Limits
from broker.errors import LimitReached, RequestIdReused, TaskEnded
from broker.ids import new_id
from broker.mint.vault_token import Rule, VaultTokenMapping
from broker.model import (
    Anchor,
    AnchorRecord,
    AnchorState,
    Caller,
    EvidenceKind,
    Identity,
    Issuance,
    IssuanceState,
    Page,
    Task,
    TaskState,
)
from broker.policy import Policy, PolicyChanged
from broker.record import Decided, Delivery, Refusal
from broker.secret import Secret
from broker.store import Store, anchors, events, issuances, policy, revocations, tasks
from tests.fixtures.records import AGENT, HOUR, NOW, a_task, an_anchor, an_issuance
from tests.fixtures.store import counting

IDENTITY = Identity(AGENT, EvidenceKind.JWT_SVID, "spiffe://example.org", AGENT, {}, "e" * 64, NOW)
MAPPING = VaultTokenMapping(kind="vault_token", rules=(Rule(path="secret/data/x", capabilities=("read",)),))
NO_LIMITS = Limits()


async def rules(store: Store) -> Policy:
    return Policy(await store.read(policy.revision), {}, ())


def delivery(
    under: Policy, task: Task, anchor: AnchorRecord, limits: Limits = NO_LIMITS, request_id: str | None = None
) -> Delivery:
    issuance = an_issuance(anchor, request_id=request_id, accessor=None)
    grant = Grant("db-read", 3, issuance.parameters, HOUR, HOUR, MAPPING, limits, "spec.who[0]")
    call = Call("m", "p", NOW, Caller(IDENTITY, frozenset()), task_id=task.id, issuance_id=issuance.id)
    return Delivery(call, Decided(under, task, False, grant, request_id), issuance)


async def delivered(store: Store, deliveries: list[Delivery]) -> list[Refusal]:
    """Record deliveries in one transaction."""
    return await store.write(lambda conn: record.deliver(conn, deliveries))


async def states(store: Store, deliveries: list[Delivery]) -> list[Issuance]:
    found = await store.read(lambda conn: [issuances.get(conn, one.issuance.id) for one in deliveries])
    return [issuance for issuance in found if issuance is not None]


async def event_types(store: Store) -> list[str]:
    return sorted(event.type for event in (await store.read(lambda conn: events.page(conn, Page(size=1000)))).items)


@pytest.fixture
async def ended(store: Store) -> tuple[Task, AnchorRecord]:
    """A task that has ended, with its anchor."""
    task = a_task(state=TaskState.COMPLETED, ended_at=NOW)
    anchor = an_anchor(task)
    await store.write(lambda conn: tasks.insert(conn, task))
    await store.write(lambda conn: anchors.insert(conn, anchor))
    return task, anchor


async def test_many_share_four_statements(store: Store, task: Task, anchor: AnchorRecord) -> None:
    under = await rules(store)
    given = [delivery(under, task, anchor, request_id=new_id()) for _ in range(32)]
    with counting() as seen:
        assert await delivered(store, given) == [None] * 32
    assert len(seen.sql) == 4
    assert await states(store, given) == [one.issuance for one in given]
    assert await event_types(store) == ["credential.issued"] * 32


async def test_one_whose_task_has_ended_is_refused_alone(
    store: Store, task: Task, anchor: AnchorRecord, ended: tuple[Task, AnchorRecord]
) -> None:
    under = await rules(store)
    given = [delivery(under, task, anchor), delivery(under, *ended), delivery(under, task, anchor)]
    first, second, third = await delivered(store, given)
    assert (first, third) == (None, None)
    assert isinstance(second, TaskEnded)
    found = [(one.state, one.end_reason) for one in await states(store, given)]
    kept = (IssuanceState.ACTIVE, "")
    assert found == [kept, (IssuanceState.FAILED, "undelivered"), kept]
    assert await event_types(store) == ["credential.issued"] * 2 + ["credential.mint_failed"]


async def test_an_anchor_of_another_task_vouches_for_nobody(
    store: Store, task: Task, anchor: AnchorRecord, ended: tuple[Task, AnchorRecord]
) -> None:
    (refusal,) = await delivered(store, [delivery(await rules(store), ended[0], anchor)])
    assert isinstance(refusal, TaskEnded)


async def test_what_was_decided_on_older_rules_or_a_dying_anchor_is_decided_again(
    store: Store, task: Task, anchor: AnchorRecord
) -> None:
    dying = an_anchor(task, state=AnchorState.REVOKING)
    await store.write(lambda conn: anchors.insert(conn, dying))
    under = await rules(store)
    older = replace(under, revision=under.revision - 1)
    refusals = await delivered(store, [delivery(older, task, anchor), delivery(under, task, dying)])
    assert [type(refusal) for refusal in refusals] == [PolicyChanged, PolicyChanged]


@pytest.mark.parametrize("outcome", ["recorded", "refused", "its task has ended"])
async def test_an_anchor_is_adopted_with_its_first_record_whatever_comes_of_that(store: Store, outcome: str) -> None:
    task = a_task()
    intent = an_anchor(task, state=AnchorState.CREATING, accessor=None)
    await store.write(lambda conn: tasks.insert(conn, task))
    await store.write(lambda conn: anchors.insert(conn, intent))
    if outcome == "its task has ended":
        await store.write(lambda conn: tasks.end(conn, [task.id], TaskState.LOCKED, NOW))
    made = Anchor(intent.id, task.id, intent.role, "made", Secret("s.x"), NOW + HOUR / 2)
    under = await rules(store)
    if outcome == "refused":
        under = replace(under, revision=under.revision - 1)

    refusals = await delivered(store, [replace(delivery(under, task, intent), anchor=made)])

    kinds = {"recorded": type(None), "refused": PolicyChanged, "its task has ended": TaskEnded}
    assert [type(refusal) for refusal in refusals] == [kinds[outcome]]
    ended = outcome == "its task has ended"
    expected = replace(
        intent,
        state=AnchorState.REVOKING if ended else AnchorState.ACTIVE,
        accessor="made",
        expires_at=made.expires_at,
    )
    assert await store.read(lambda conn: anchors.of_task(conn, task.id)) == [expected]
    queued = await store.read(lambda conn: revocations.of_task(conn, task.id))
    assert [entry.accessor for entry in queued] == (["made"] if ended else [])


async def test_limits_count_what_the_same_transaction_records(store: Store, task: Task, anchor: AnchorRecord) -> None:
    under = await rules(store)
    given = [delivery(under, task, anchor, Limits(live_per_task=3)) for _ in range(5)]
    refusals = await delivered(store, given)
    assert refusals[:3] == [None] * 3
    assert [type(refusal) for refusal in refusals[3:]] == [LimitReached] * 2
    assert [one.state for one in await states(store, given)] == [IssuanceState.ACTIVE] * 3 + [IssuanceState.FAILED] * 2


async def test_one_of_two_with_the_same_request_id_is_recorded(store: Store, task: Task, anchor: AnchorRecord) -> None:
    under, request = await rules(store), new_id()
    given = [delivery(under, task, anchor, request_id=request) for _ in range(2)]
    refusals = await delivered(store, given)
    (granted,) = [one.issuance.id for one, refusal in zip(given, refusals, strict=True) if refusal is None]
    (refusal,) = [refusal for refusal in refusals if refusal is not None]
    assert isinstance(refusal, RequestIdReused)
    assert refusal.metadata["issuance_id"] == granted
    assert sorted(str(one.request_id) for one in await states(store, given)) == sorted([request, "None"])


async def test_one_that_cannot_be_stored_fails_alone(store: Store, task: Task, anchor: AnchorRecord) -> None:
    under = await rules(store)
    given = [delivery(under, task, anchor) for _ in range(3)]
    spoilt = replace(given[1], issuance=replace(given[1].issuance, anchor_id=new_id()))
    asking = [store.write_each(record.deliver, one) for one in (given[0], spoilt, given[2])]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert (answers[0], answers[2]) == (None, None)
    assert answers[1] is not None
