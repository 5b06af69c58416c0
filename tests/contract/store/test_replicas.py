"""Several replicas on one database: what one holds, the others wait for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import psycopg
import pytest
from sqlalchemy import Connection, create_engine

from broker.errors import StoreUnavailable
from broker.ids import new_id
from broker.model import Issuance, IssuanceState, Task, TaskState
from broker.secret import Secret
from broker.store import Store, anchors, issuances, policy, revocations, scopes, tasks
from tests.fixtures.records import AGENT, HOUR, NOW, a_revocation, a_scope, a_task, active_tasks, an_anchor, an_issuance
from tests.fixtures.store import NewStore, running

T = TypeVar("T")


@asynccontextmanager
async def open_transaction(store: Store, work: Callable[[Connection], T]) -> AsyncIterator[T]:
    """Do a work on a store and leave its transaction open while inside."""
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    loop, go_on = asyncio.get_running_loop(), threading.Event()

    def hold(conn: Connection) -> None:
        loop.call_soon_threadsafe(done.set_result, work(conn))
        go_on.wait()

    holding = asyncio.create_task(store.write(hold))
    try:
        yield await done
    finally:
        go_on.set()
        await holding


class Waiting:
    """Tells whether a session waits for a lock of another."""

    def __init__(self, session: psycopg.Connection[tuple[int]]) -> None:
        self._session = session

    async def until(self, count: int) -> None:
        query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid != pg_backend_pid()"
        while True:
            row = await asyncio.to_thread(lambda: self._session.execute(query).fetchone())
            if row == (count,):
                return


@pytest.fixture
def waiting(postgres_url: Secret[str]) -> Iterator[Waiting]:
    dsn = postgres_url.reveal().replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(dsn, autocommit=True) as session:
        yield Waiting(session)


@pytest.fixture
async def first(postgres_url: Secret[str]) -> AsyncIterator[Store]:
    async with running(postgres_url) as store:
        yield store


@pytest.fixture
async def second(postgres_url: Secret[str]) -> AsyncIterator[Store]:
    async with running(postgres_url) as store:
        yield store


@pytest.fixture
async def task(first: Store) -> Task:
    task = a_task()
    await first.write(lambda conn: tasks.insert(conn, task))
    return task


@pytest.fixture
async def issuance(first: Store, task: Task) -> Issuance:
    anchor = an_anchor(task)
    issuance = an_issuance(anchor)
    await first.write(lambda conn: anchors.insert(conn, anchor))
    await first.write(lambda conn: issuances.insert(conn, issuance))
    return issuance


async def test_a_pinned_task_ends_only_after_the_commit(
    first: Store, second: Store, task: Task, waiting: Waiting
) -> None:
    async with open_transaction(first, lambda conn: tasks.pin_active(conn, [task.id])) as pinned:
        assert pinned == {task.id}
        ending = asyncio.create_task(second.write(lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW)))
        await waiting.until(1)
        assert not ending.done()
    assert [ended.id for ended in await ending] == [task.id]


async def test_a_pin_sees_what_it_had_to_wait_for(first: Store, second: Store, task: Task, waiting: Waiting) -> None:
    async with open_transaction(first, lambda conn: tasks.end(conn, [task.id], TaskState.LOCKED, NOW)):
        pinning = asyncio.create_task(second.write(lambda conn: tasks.pin_active(conn, [task.id])))
        await waiting.until(1)
    assert await pinning == set()


async def test_what_a_record_rests_on_ends_only_after_its_commit(
    first: Store, second: Store, task: Task, waiting: Waiting
) -> None:
    anchor = an_anchor(task)
    await first.write(lambda conn: anchors.insert(conn, anchor))
    pairs = {(anchor.id, task.id)}
    async with open_transaction(first, lambda conn: tasks.pin_standing(conn, pairs)) as standing:
        assert standing
        ending = asyncio.create_task(second.write(lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW)))
        await waiting.until(1)
        assert not ending.done()
    assert [ended.id for ended in await ending] == [task.id]


async def test_a_record_sees_the_end_that_it_had_to_wait_for(
    first: Store, second: Store, task: Task, waiting: Waiting
) -> None:
    anchor = an_anchor(task)
    await first.write(lambda conn: anchors.insert(conn, anchor))
    async with open_transaction(first, lambda conn: tasks.end(conn, [task.id], TaskState.LOCKED, NOW)):
        pinning = asyncio.create_task(second.write(lambda conn: tasks.pin_standing(conn, {(anchor.id, task.id)})))
        await waiting.until(1)
    assert not await pinning


async def test_two_pins_do_not_wait_for_each_other(first: Store, second: Store, task: Task) -> None:
    async with open_transaction(first, lambda conn: tasks.pin_active(conn, [task.id])):
        assert await second.write(lambda conn: tasks.pin_active(conn, [task.id])) == {task.id}


async def test_a_task_ends_once_whoever_comes_first(first: Store, second: Store, task: Task, waiting: Waiting) -> None:
    async with open_transaction(first, lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW)):
        ending = asyncio.create_task(second.write(lambda conn: tasks.end(conn, [task.id], TaskState.LOCKED, NOW)))
        await waiting.until(1)
    assert await ending == []


async def test_a_pinned_issuance_is_changed_only_after_the_commit(
    first: Store, second: Store, issuance: Issuance, waiting: Waiting
) -> None:
    def renew(conn: Connection) -> bool:
        issuances.pin(conn, issuance.id)
        return issuances.renewed(conn, issuance.id, NOW + HOUR, NOW)

    async with open_transaction(first, renew) as renewed:
        assert renewed
        revoking = asyncio.create_task(second.write(lambda conn: issuances.pin(conn, issuance.id)))
        await waiting.until(1)
    seen = await revoking
    assert seen is not None
    assert seen.expires_at == NOW + HOUR


async def test_rules_change_only_after_those_who_pinned_them(first: Store, second: Store, waiting: Waiting) -> None:
    async with open_transaction(first, policy.pin_revision) as pinned:
        raising = asyncio.create_task(second.write(policy.raise_revision))
        await waiting.until(1)
        assert await first.read(policy.revision) == pinned
    assert await raising == pinned + 1
    assert await first.write(policy.pin_revision) == pinned + 1


async def test_a_change_of_rules_is_not_kept_waiting_by_later_pins(
    first: Store, second: Store, postgres_url: Secret[str], waiting: Waiting
) -> None:
    async with running(postgres_url) as third:
        async with open_transaction(first, policy.pin_revision) as pinned:
            raising = asyncio.create_task(second.write(policy.raise_revision))
            await waiting.until(1)
            pinning = asyncio.create_task(third.write(policy.pin_revision))
            await waiting.until(2)
        assert await raising == pinned + 1
        assert await pinning == pinned + 1


async def test_the_last_two_confirmations_do_not_miss_each_other(
    first: Store, second: Store, task: Task, waiting: Waiting
) -> None:
    entries = [a_revocation(task) for _ in range(2)]
    await first.write(lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW))
    for entry in entries:
        await first.write(lambda conn, entry=entry: revocations.insert_all(conn, [entry]))  # type: ignore[misc]

    def confirm(number: int) -> Callable[[Connection], bool]:
        def work(conn: Connection) -> bool:
            revocations.confirm(conn, [entries[number]], NOW)
            return bool(tasks.confirm_revoked(conn, [task.id], NOW))

        return work

    async with open_transaction(first, confirm(0)) as confirmed_by_first:
        confirming = asyncio.create_task(second.write(confirm(1)))
        await waiting.until(1)
    assert (confirmed_by_first, await confirming) == (False, True)


async def test_works_that_lock_each_other_out_are_done_one_after_the_other(first: Store, second: Store) -> None:
    one, other = a_task(), a_task()
    for task in (one, other):
        await first.write(lambda conn, task=task: tasks.insert(conn, task))  # type: ignore[misc]
    both_hold_one = threading.Barrier(2)

    def crossing(mine: Task, theirs: Task) -> Callable[[Connection], int]:
        runs: list[int] = []

        def work(conn: Connection) -> int:
            runs.append(1)
            tasks.heartbeat(conn, mine.id, NOW)
            if len(runs) == 1:
                both_hold_one.wait()
            tasks.heartbeat(conn, theirs.id, NOW)
            return len(runs)

        return work

    runs = await asyncio.gather(first.write(crossing(one, other)), second.write(crossing(other, one)))
    # Whoever is told to repeat may be back before the other has taken what it waited for, and meet it again.
    assert max(runs) > 1


async def test_a_request_on_two_replicas_at_once_starts_one_task(first: Store, second: Store, waiting: Waiting) -> None:
    request = new_id()
    one, other = a_task(request_id=request), a_task(request_id=request)

    def start(task: Task) -> Callable[[Connection], Task]:
        def work(conn: Connection) -> Task:
            earlier = tasks.by_request(conn, AGENT, request)
            if earlier is not None:
                return earlier
            tasks.insert(conn, task)
            return task

        return work

    async with open_transaction(first, start(one)):
        starting = asyncio.create_task(second.write(start(other)))
        await waiting.until(1)
    assert await starting == one


async def test_a_race_may_be_lost_more_than_once(first: Store, postgres_url: Secret[str]) -> None:
    rivals = [a_task(request_id=new_id()) for _ in range(2)]
    lost: list[Task] = []
    mine = a_task()

    def start(conn: Connection) -> None:
        rival = next((task for task in rivals if tasks.get(conn, task.id) is None), None)
        if rival is not None:
            # Another replica is faster, after this one has looked.
            with rivals_engine.begin() as other:
                tasks.insert(other, rival)
            lost.append(rival)
            tasks.insert(conn, replace(mine, request_id=rival.request_id))
        tasks.insert(conn, mine)

    rivals_engine = create_engine(postgres_url.reveal())
    try:
        await first.write(start)
    finally:
        rivals_engine.dispose()
    assert lost == rivals
    assert await first.read(active_tasks) == sorted([*rivals, mine], key=lambda task: task.id)


async def test_two_admins_on_two_replicas_make_two_versions(first: Store, second: Store, waiting: Waiting) -> None:
    def create(etag: str) -> Callable[[Connection], int]:
        def work(conn: Connection) -> int:
            version = scopes.newest_version(conn, "db-read") + 1
            scopes.insert(conn, a_scope(version=version, etag=etag))
            return version

        return work

    async with open_transaction(first, create("one")):
        creating = asyncio.create_task(second.write(create("other")))
        await waiting.until(1)
    assert await creating == 2
    [current] = await first.read(scopes.current)
    assert (current.version, current.etag) == (2, "other")


async def test_what_waits_for_a_lock_too_long_gives_up(first: Store, task: Task, postgres_url: Secret[str]) -> None:
    impatient = Secret(postgres_url.reveal() + "?options=-c%20lock_timeout%3D50")
    async with running(impatient) as second, open_transaction(first, lambda conn: tasks.pin_active(conn, [task.id])):
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await second.write(lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW))


async def test_limits_hold_across_replicas(new_store: NewStore) -> None:
    replicas = [await new_store() for _ in range(3)]
    owner = a_task()
    anchor = an_anchor(owner)
    await replicas[0].write(lambda conn: tasks.insert(conn, owner))
    await replicas[0].write(lambda conn: anchors.insert(conn, anchor))

    def issue(conn: Connection) -> bool:
        issuances.lock_limits(conn)
        if issuances.count_live(conn, scope="db-read") >= 10:
            return False
        issuances.insert(conn, an_issuance(anchor))
        return True

    attempts: list[Awaitable[bool]] = [store.write(issue) for store in replicas for _ in range(10)]
    assert (await asyncio.gather(*attempts)).count(True) == 10


async def test_one_of_many_replicas_activates_an_issuance(new_store: NewStore) -> None:
    replicas = [await new_store() for _ in range(3)]
    owner = a_task()
    anchor = an_anchor(owner)
    intent = an_issuance(anchor, state=IssuanceState.MINTING)
    await replicas[0].write(lambda conn: tasks.insert(conn, owner))
    await replicas[0].write(lambda conn: anchors.insert(conn, anchor))
    await replicas[0].write(lambda conn: issuances.insert(conn, intent))

    def request_revocation(conn: Connection) -> bool:
        return issuances.request_revocation(conn, intent.id, "task.completed", NOW)

    moved = await asyncio.gather(*(store.write(request_revocation) for store in replicas for _ in range(5)))
    assert moved.count(True) == 1
