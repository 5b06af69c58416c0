"""Writes that share a commit: who shares, who fails, and what an answer means."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from broker import deadline
from broker.errors import DeadlineExceeded, Overloaded, StoreUnavailable, TaskEnded
from broker.model import Task
from broker.secret import Secret
from broker.store import Store, tasks
from broker.store.engine import READERS
from broker.store.failures import Conflict
from broker.store.writer import MAX_TOGETHER, MAX_WAITING
from tests.fixtures.records import a_task, active_tasks
from tests.fixtures.store import NewStore, counting, running

Work = Callable[[Connection], object]


@asynccontextmanager
async def held_up(store: Store) -> AsyncIterator[None]:
    """Keep the writer busy, so that everything submitted inside waits for it."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(conn: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()

    holding = asyncio.create_task(store.write(hold))
    await begun.wait()
    try:
        yield
        # One turn of the loop lets everything created inside reach the queue.
        await asyncio.sleep(0)
    finally:
        go_on.set()
        await holding


async def together(store: Store, works: list[Work]) -> list[object]:
    """Submit works while the writer is busy and return their results or errors."""
    async with held_up(store):
        waiting = [asyncio.ensure_future(store.write(work)) for work in works]
    return await asyncio.gather(*waiting, return_exceptions=True)


def inserting(task: Task) -> Work:
    return lambda conn: tasks.insert(conn, task)


def failing(task: Task) -> Work:
    def work(conn: Connection) -> None:
        tasks.insert(conn, task)
        raise TaskEnded(task.id)

    return work


async def present(store: Store) -> set[str]:
    return {task.id for task in await store.read(active_tasks)}


def ids(records: list[Task]) -> set[str]:
    return {task.id for task in records}


async def test_what_waits_shares_one_transaction(store: Store) -> None:
    records = [a_task() for _ in range(100)]
    with counting() as seen:
        await together(store, [inserting(task) for task in records])
    assert seen.commits == 2  # what kept the writer busy, and all the others
    assert await present(store) == ids(records)


async def test_a_transaction_does_not_grow_without_end(store: Store) -> None:
    with counting() as seen:
        await together(store, [lambda conn: None] * (2 * MAX_TOGETHER + 1))
    assert seen.commits == 1 + 3


async def test_callers_at_once_share_commits_by_themselves(store: Store) -> None:
    records = [a_task() for _ in range(200)]
    with counting() as seen:
        await asyncio.gather(*(store.write(inserting(task)) for task in records))
    assert seen.commits < 20
    assert await present(store) == ids(records)


async def test_each_caller_gets_its_own_result_in_order(store: Store) -> None:
    def numbered(number: int) -> Work:
        return lambda conn: number

    assert await together(store, [numbered(n) for n in range(50)]) == list(range(50))


async def test_works_see_what_earlier_ones_of_their_transaction_did(store: Store) -> None:
    task = a_task()
    assert await together(store, [inserting(task), lambda conn: tasks.get(conn, task.id)]) == [None, task]


@pytest.mark.parametrize("places", [[0], [9], [19], [3, 4, 12], list(range(20))])
async def test_a_work_that_fails_fails_alone(store: Store, places: list[int]) -> None:
    records = [a_task() for _ in range(20)]
    works = [failing(task) if place in places else inserting(task) for place, task in enumerate(records)]
    with counting() as seen:
        results = await together(store, works)
    for place, (task, result) in enumerate(zip(records, results, strict=True)):
        assert (result.detail if isinstance(result, TaskEnded) else result) == (task.id if place in places else None)
    assert await present(store) == ids([task for place, task in enumerate(records) if place not in places])
    assert seen.commits == 2


async def test_a_lone_work_that_fails_leaves_nothing_and_runs_once(store: Store) -> None:
    runs: list[int] = []

    def work(conn: Connection) -> None:
        runs.append(1)
        failing(a_task())(conn)

    with counting() as seen, pytest.raises(TaskEnded):
        await store.write(work)
    assert (await present(store), seen.commits, len(runs)) == (set(), 0, 1)


async def test_a_work_that_breaks_a_constraint_fails_alone(store: Store) -> None:
    known, other = a_task(), a_task()
    await store.write(inserting(known))
    first, second, third = await together(store, [lambda conn: 1, inserting(known), inserting(other)])
    assert (first, third) == (1, None)
    assert isinstance(second, Conflict)
    assert "pk_tasks" in str(second) or "tasks.id" in str(second)
    assert known.purpose not in str(second)
    assert await present(store) == ids([known, other])


async def test_a_work_that_speaks_no_sql_fails_alone(store: Store) -> None:
    def nonsense(conn: Connection) -> None:
        conn.execute(text("SELECT nonsense FROM nowhere WHERE secret = :s"), {"s": "hunter2"})

    task = a_task()
    result, inserted = await together(store, [nonsense, inserting(task)])
    assert isinstance(result, StoreUnavailable)
    assert "hunter2" not in repr(result) + result.detail
    assert inserted is None
    assert await present(store) == {task.id}


async def test_even_exceptions_that_no_future_carries_reach_their_caller(store: Store) -> None:
    def exhausted(conn: Connection) -> object:
        return next(iter(()))

    result, other = await together(store, [exhausted, lambda conn: 1])
    assert isinstance(result, RuntimeError)
    assert other == 1


async def test_a_cancelled_caller_stops_neither_its_work_nor_the_others(store: Store) -> None:
    records = [a_task() for _ in range(5)]
    async with held_up(store):
        waiting = [asyncio.ensure_future(store.write(inserting(task))) for task in records]
        await asyncio.sleep(0)
        waiting[2].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results.pop(2), asyncio.CancelledError)
    assert results == [None] * 4
    assert await present(store) == ids(records)


class Gate:
    """Holds back COMMITs of this process while it is shut."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reached = asyncio.Event()
        self._loop = loop
        self._open = threading.Event()
        self._open.set()

    def wait(self, conn: Connection) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        self._open.wait()

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.reached.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """To be asked for before the store, so that it stays until the store's threads have ended."""
    gate = Gate(asyncio.get_running_loop())
    event.listen(Engine, "commit", gate.wait)
    yield gate
    event.remove(Engine, "commit", gate.wait)


async def test_a_caller_cancelled_during_its_commit_disturbs_nobody(gate: Gate, store: Store) -> None:
    task, other = a_task(), a_task()
    with gate.shut():
        first = asyncio.ensure_future(store.write(inserting(task)))
        await gate.reached.wait()
        first.cancel()
        second = asyncio.ensure_future(store.write(inserting(other)))
        await asyncio.wait([first])
    assert first.cancelled()
    await second
    assert await present(store) == ids([task, other])


@contextmanager
def another_connection(url: Secret[str]) -> Iterator[Callable[[], int]]:
    """Count tasks over a connection that is none of the store's."""
    engine = create_engine(url.reveal())
    try:
        with engine.connect() as conn:

            def count() -> int:
                found = int(conn.execute(text("SELECT count(*) FROM tasks")).scalar_one())
                conn.rollback()
                return found

            yield count
    finally:
        engine.dispose()


async def test_the_answer_comes_after_the_commit(gate: Gate, store: Store, database: Secret[str]) -> None:
    with another_connection(database) as count:
        with gate.shut():
            writing = asyncio.ensure_future(store.write(inserting(a_task())))
            await gate.reached.wait()
            assert count() == 0
            assert not writing.done()
        await writing
        assert count() == 1


async def test_a_failed_commit_fails_everybody_and_nothing_is_tried_again(store: Store, database: Secret[str]) -> None:
    runs: list[int] = []

    def doomed(conn: Connection) -> None:
        runs.append(1)
        break_commit(conn)

    results = await together(store, [inserting(a_task()), doomed])
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert all("COMMIT" in str(result) for result in results)
    assert len(runs) == 1
    assert await present(store) == set()

    task = a_task()
    await store.write(inserting(task))
    assert await present(store) == {task.id}


def break_commit(conn: Connection) -> None:
    """Make the COMMIT of this transaction fail, by means of the database itself."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        conn.exec_driver_sql("INSERT INTO anchors VALUES ('a', 'nobody', '', '', '', '', 0, 0)")
        return
    conn.exec_driver_sql("CREATE TEMP TABLE parent (id int PRIMARY KEY)")
    conn.exec_driver_sql("CREATE TEMP TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    conn.exec_driver_sql("INSERT INTO child VALUES (1)")


async def test_a_dropped_transaction_is_never_acknowledged(postgres_url: Secret[str], sqlite_url: Secret[str]) -> None:
    def swallow(conn: Connection) -> None:
        with suppress(DBAPIError):
            conn.exec_driver_sql("SELECT 1 FROM nowhere")

    def drop(conn: Connection) -> None:
        conn.exec_driver_sql("ROLLBACK")

    for url, work in ((postgres_url, swallow), (sqlite_url, drop)):
        async with running(url) as store:
            results = await together(store, [inserting(a_task()), work])
            assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
            assert await present(store) == set()
            task = a_task()
            await store.write(inserting(task))
            assert await present(store) == {task.id}


async def test_a_full_disk_loses_nothing_that_was_acknowledged(sqlite_url: Secret[str]) -> None:
    async with running(sqlite_url) as store:
        pages = await store.read(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
        await store.write(lambda conn: conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 40}").scalar_one())
        records = [a_task(purpose="x" * (400_000 if n == 5 else 10)) for n in range(10)]
        results = await together(store, [inserting(task) for task in records])
        assert isinstance(results[5], StoreUnavailable)
        assert "full" in results[5].detail
        acknowledged = [task for task, result in zip(records, results, strict=True) if result is None]
        assert await present(store) == ids(acknowledged)


async def test_too_much_waiting_is_refused_at_once(store: Store) -> None:
    async with held_up(store):
        waiting = [asyncio.ensure_future(store.write(lambda conn: None)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="wait for the database already") as caught:
            await store.write(lambda conn: None)
        assert caught.value.retry_after
    await asyncio.gather(*waiting)
    await store.write(lambda conn: None)


async def test_what_waits_beyond_its_deadline_is_never_run(store: Store) -> None:
    late, other = a_task(), a_task()

    async def write_late() -> None:
        with deadline.within(timedelta(milliseconds=50)):
            await store.write(inserting(late))

    async with held_up(store):
        waiting = [asyncio.ensure_future(write_late()), asyncio.ensure_future(store.write(inserting(other)))]
        with pytest.raises(DeadlineExceeded):
            await waiting[0]
    await waiting[1]
    assert await present(store) == {other.id}


async def test_what_has_begun_before_its_deadline_is_finished(gate: Gate, store: Store) -> None:
    task = a_task()
    with gate.shut(), deadline.within(timedelta(milliseconds=50)), pytest.raises(DeadlineExceeded):
        await store.write(inserting(task))
    await store.write(lambda conn: None)  # its turn comes after the first one's end
    assert await present(store) == {task.id}


async def test_reads_beyond_their_deadline_are_never_run(store: Store) -> None:
    begun, go_on = threading.Barrier(READERS + 1), threading.Event()
    runs: list[object] = []

    def block(conn: Connection) -> None:
        begun.wait()
        go_on.wait()

    blocking = [asyncio.ensure_future(store.read(block)) for _ in range(READERS)]
    await asyncio.to_thread(begun.wait)
    try:
        with deadline.within(timedelta(milliseconds=50)), pytest.raises(DeadlineExceeded):
            await store.read(runs.append)
    finally:
        go_on.set()
    await asyncio.gather(*blocking, *(store.read(active_tasks) for _ in range(READERS)))
    assert runs == []


async def test_closing_writes_what_waits_and_ends_the_threads(new_store: NewStore, store: Store) -> None:
    closing = await new_store()
    records = [a_task() for _ in range(10)]
    await closing.read(active_tasks)
    async with held_up(closing):
        writes = [asyncio.ensure_future(closing.write(inserting(task))) for task in records]
        await asyncio.sleep(0)
        ending = asyncio.ensure_future(closing.close())
        await asyncio.sleep(0)
        for refused in (closing.write(lambda conn: None), closing.read(lambda conn: None)):
            with pytest.raises(StoreUnavailable, match="closed"):
                await refused
    await asyncio.gather(*writes)
    await ending
    assert await present(store) == ids(records)


async def test_reads_under_way_are_answered_when_closing(new_store: NewStore) -> None:
    closing = await new_store()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read(conn: Connection) -> int:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return int(conn.execute(text("SELECT 7")).scalar_one())

    reading = asyncio.ensure_future(closing.read(read))
    await begun.wait()
    ending = asyncio.ensure_future(closing.close())
    await asyncio.sleep(0)
    go_on.set()
    assert await reading == 7
    await ending


async def test_no_thread_outlives_its_store(database: Secret[str]) -> None:
    def of_stores() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("store-")}

    before = of_stores()
    async with running(database) as store:
        await asyncio.gather(*(store.read(active_tasks) for _ in range(20)), store.write(active_tasks))
        assert of_stores() > before
    assert of_stores() == before


async def test_closing_twice_or_unstarted_is_nothing(database: Secret[str]) -> None:
    store = Store(database)
    await store.close()
    await store.start()
    await store.close()
    await store.close()
    for refused in (store.write(active_tasks), store.read(active_tasks), store.check()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await refused


async def test_what_a_read_raises_is_its_own(store: Store) -> None:
    def work(conn: Connection) -> None:
        raise TaskEnded("x")

    with pytest.raises(TaskEnded):
        await store.read(work)


async def test_reads_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match=r"read-?only"):
        await store.read(inserting(a_task()))


async def test_a_read_sees_one_state(store: Store) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def look_twice(conn: Connection) -> tuple[int, int]:
        before = len(active_tasks(conn))
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return before, len(active_tasks(conn))

    looking: Awaitable[tuple[int, int]] = asyncio.ensure_future(store.read(look_twice))
    await begun.wait()
    await store.write(inserting(a_task()))
    go_on.set()
    assert await looking == (0, 0)
    assert len(await store.read(active_tasks)) == 1
