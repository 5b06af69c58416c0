"""The outbox of revocations, on every database."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from broker.model import AnchorRecord, Revocation, Task
from broker.store import Store, revocations
from tests.contract.store.conftest import Issue
from tests.fixtures.records import HOUR, NOW, a_revocation, a_task

SECOND = timedelta(seconds=1)


async def queued(store: Store, revocation: Revocation) -> Revocation:
    assert await store.write(lambda conn: revocations.insert(conn, revocation))
    return revocation


async def of(store: Store, task: Task) -> list[Revocation]:
    return await store.read(lambda conn: revocations.of_task(conn, task.id))


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
    again = a_revocation(task, accessor=first.accessor)
    assert not await store.write(lambda conn: revocations.insert(conn, again))
    await store.write(lambda conn: revocations.confirm(conn, first.id, NOW))
    assert not await store.write(lambda conn: revocations.insert(conn, again))
    assert await of(store, task) == [replace(first, confirmed_at=NOW)]


async def test_what_is_due_comes_longest_due_first(store: Store, task: Task) -> None:
    third, first, second = [
        await queued(store, a_revocation(task, next_attempt_at=NOW + n * SECOND)) for n in (3, 1, 2)
    ]
    assert await store.read(lambda conn: revocations.due(conn, NOW + 2 * SECOND, 10)) == [first, second]
    assert await store.read(lambda conn: revocations.due(conn, NOW + HOUR, 2)) == [first, second]
    await store.write(lambda conn: revocations.confirm(conn, first.id, NOW))
    assert await store.read(lambda conn: revocations.due(conn, NOW + HOUR, 10)) == [second, third]


async def test_a_failed_attempt_is_noted_and_tried_later(store: Store, task: Task) -> None:
    entry = await queued(store, a_revocation(task))
    for attempts in (1, 2):
        at = NOW + attempts * SECOND
        await store.write(partial(revocations.retry, revocation_id=entry.id, error="503 \x00", next_attempt_at=at))
        expected = replace(entry, attempts=attempts, last_error="503 \\u0000", next_attempt_at=at)
        assert await of(store, task) == [expected]
    assert await store.read(lambda conn: revocations.due(conn, NOW + SECOND, 10)) == []


async def test_confirmation_counts_once_and_is_final(store: Store, task: Task) -> None:
    entry = await queued(store, a_revocation(task))
    assert await store.write(lambda conn: revocations.confirm(conn, entry.id, NOW))
    assert not await store.write(lambda conn: revocations.confirm(conn, entry.id, NOW + HOUR))
    await store.write(lambda conn: revocations.retry(conn, entry.id, error="late", next_attempt_at=NOW))
    assert await of(store, task) == [replace(entry, confirmed_at=NOW)]


async def test_the_backlog_is_what_vault_is_yet_to_confirm(store: Store, task: Task) -> None:
    assert await store.read(revocations.backlog) == 0
    entries = [await queued(store, a_revocation(task)) for _ in range(3)]
    await store.write(lambda conn: revocations.confirm(conn, entries[0].id, NOW))
    assert await store.read(revocations.backlog) == 2
