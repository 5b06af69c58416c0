"""The outbox of revocations, on every database."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from broker.model import AnchorRecord, Revocation, Task
from broker.store import Store, revocations
from tests.contract.store.conftest import Issue
from tests.fixtures.records import HOUR, NOW, a_revocation, a_task

SECOND = timedelta(seconds=1)
HOLD = 40 * SECOND


async def queued(store: Store, revocation: Revocation) -> Revocation:
    await store.write(lambda conn: revocations.insert_all(conn, [revocation]))
    return revocation


async def of(store: Store, task: Task) -> list[Revocation]:
    return await store.read(lambda conn: revocations.of_task(conn, task.id))


async def claimed(
    store: Store, now: datetime = NOW, *, by: str = "one", limit: int = 10, task_id: str | None = None
) -> list[Revocation]:
    return await store.write(lambda conn: revocations.claim(conn, now, by=by, hold=HOLD, limit=limit, task_id=task_id))


async def test_entries_come_back_as_they_were_queued(
    store: Store, task: Task, anchor: AnchorRecord, issue: Issue
) -> None:
    issuance = await issue()
    first = await queued(store, a_revocation(task, anchor_id=anchor.id))
    second = await queued(store, a_revocation(task, issuance_id=issuance.id, lease_id="database/creds/x/1"))
    assert await of(store, task) == [first, second]
    assert await of(store, a_task()) == []


async def test_an_accessor_is_queued_once(store: Store, task: Task) -> None:
    first = await queued(store, a_revocation(task))
    again, other = a_revocation(task, accessor=first.accessor), a_revocation(task)
    await store.write(lambda conn: revocations.insert_all(conn, [again, other]))
    assert await of(store, task) == [first, other]
    await store.write(lambda conn: revocations.confirm(conn, [first], NOW))
    await queued(store, again)
    assert await of(store, task) == [replace(first, confirmed_at=NOW), other]
    await store.write(lambda conn: revocations.insert_all(conn, []))


async def test_a_claim_takes_what_is_due_anchors_first(store: Store, task: Task, anchor: AnchorRecord) -> None:
    late = await queued(store, a_revocation(task, next_attempt_at=NOW + 3 * SECOND))
    single = await queued(store, a_revocation(task, next_attempt_at=NOW - 2 * SECOND))
    of_anchor = await queued(store, a_revocation(task, anchor_id=anchor.id))

    first = await claimed(store, limit=1)
    rest = await claimed(store)

    assert first == [replace(of_anchor, epoch=1, claimed_by="one", next_attempt_at=NOW + HOLD)]
    assert rest == [replace(single, epoch=1, claimed_by="one", next_attempt_at=NOW + HOLD)]
    assert await claimed(store, NOW + 2 * SECOND) == []
    assert [entry.id for entry in await claimed(store, NOW + 3 * SECOND)] == [late.id]


async def test_one_claim_takes_anchors_and_others_together(store: Store, task: Task, anchor: AnchorRecord) -> None:
    single = await queued(store, a_revocation(task))
    of_anchor = await queued(store, a_revocation(task, anchor_id=anchor.id))
    assert [entry.id for entry in await claimed(store)] == [of_anchor.id, single.id]


async def test_a_claim_can_be_bound_to_a_task(store: Store, task: Task) -> None:
    await queued(store, a_revocation(task))
    assert await claimed(store, task_id=a_task().id) == []
    assert len(await claimed(store, task_id=task.id)) == 1


async def test_what_was_written_by_a_clock_far_ahead_is_due(store: Store, task: Task) -> None:
    await queued(store, a_revocation(task, next_attempt_at=NOW + HOUR))
    assert len(await claimed(store)) == 1


async def test_a_claim_that_lapsed_is_taken_by_another_and_refused_to_the_first(store: Store, task: Task) -> None:
    await queued(store, a_revocation(task))
    [stale] = await claimed(store)
    [newer] = await claimed(store, NOW + HOLD, by="two")

    assert (newer.epoch, newer.claimed_by) == (stale.epoch + 1, "two")
    assert not await store.write(lambda conn: revocations.confirm(conn, [stale], NOW + HOLD))
    assert not await store.write(lambda conn: revocations.retry(conn, stale, error="late", next_attempt_at=NOW + HOUR))
    await store.write(lambda conn: revocations.release(conn, [stale], NOW))
    assert await of(store, task) == [newer]
    assert await store.write(lambda conn: revocations.confirm(conn, [newer], NOW + HOLD))


async def test_what_is_released_is_due_at_once(store: Store, task: Task) -> None:
    await queued(store, a_revocation(task))
    entries = await claimed(store)
    await store.write(lambda conn: revocations.release(conn, entries, NOW))
    assert len(await claimed(store, by="two")) == 1
    await store.write(lambda conn: revocations.release(conn, [], NOW))


async def test_a_failed_attempt_is_noted_and_tried_later(store: Store, task: Task) -> None:
    entry = await queued(store, a_revocation(task))
    for attempts in (1, 2):
        at = NOW + attempts * SECOND
        assert await store.write(partial(revocations.retry, claimed=entry, error="503 \x00", next_attempt_at=at))
        expected = replace(entry, attempts=attempts, last_error="503 \\u0000", next_attempt_at=at)
        assert await of(store, task) == [expected]
    assert await claimed(store, NOW + SECOND) == []


async def test_confirmation_counts_once_and_is_final(store: Store, task: Task) -> None:
    entry = await queued(store, a_revocation(task))
    assert await store.write(lambda conn: revocations.confirm(conn, [entry], NOW))
    assert not await store.write(lambda conn: revocations.confirm(conn, [entry], NOW + HOUR))
    assert not await store.write(lambda conn: revocations.retry(conn, entry, error="late", next_attempt_at=NOW))
    assert await of(store, task) == [replace(entry, confirmed_at=NOW)]
    assert await claimed(store, NOW + HOUR) == []
