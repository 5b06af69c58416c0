"""The database goes away and comes back."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, make_url, text

from broker.dev.postgres import Postgres
from broker.errors import StoreUnavailable
from broker.model import Task
from broker.secret import Secret
from broker.store import Store, migrate, tasks
from broker.store.engine import READERS
from tests.fixtures.records import a_task, active_tasks
from tests.fixtures.store import running


class Server:
    """A PostgreSQL of these tests' own, that can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.postgres = Postgres.start(folder)

    @contextmanager
    def away(self, end: Callable[[Postgres], None] = Postgres.stop) -> Iterator[None]:
        """End the server, and start it again on leaving."""
        end(self.postgres)
        try:
            yield
        finally:
            self.postgres = Postgres.start(self._folder, port=self.postgres.port)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("outage") / "server")
    yield server
    server.postgres.stop()


@pytest.fixture
def url(server: Server) -> Secret[str]:
    """A fresh database on it."""
    name = f"test_{uuid4().hex}"
    server.postgres.create_database(name)
    url = server.postgres.sqlalchemy_url(name)
    migrate.upgrade(url)
    return url


@pytest.fixture
async def store(url: Secret[str]) -> AsyncIterator[Store]:
    async with running(url) as store:
        yield store


async def insert(store: Store) -> Task:
    task = a_task()
    await store.write(lambda conn: tasks.insert(conn, task))
    return task


async def unavailable(store: Store) -> None:
    for attempt in (store.write(active_tasks), store.read(active_tasks), store.check()):
        with pytest.raises(StoreUnavailable):
            await attempt


async def test_a_stopped_server_is_reported_and_used_again_when_back(server: Server, store: Store) -> None:
    before = await insert(store)
    with server.away():
        await unavailable(store)
        await unavailable(store)
    after = await insert(store)
    assert await store.read(active_tasks) == [before, after]
    await store.check()


async def test_what_was_acknowledged_survives_a_crash(server: Server, store: Store) -> None:
    acknowledged = await asyncio.gather(*(insert(store) for _ in range(20)))
    with server.away(Postgres.kill):
        await unavailable(store)
    assert {task.id for task in await store.read(active_tasks)} == {task.id for task in acknowledged}


async def test_everybody_who_waits_for_a_lost_server_is_told_at_once(server: Server, store: Store) -> None:
    with server.away():
        attempts = [ask(active_tasks) for ask in (store.write, store.read) for _ in range(1000)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}


async def test_who_waits_while_another_finds_out_does_not_find_out_again() -> None:
    attempts: list[asyncio.StreamWriter] = []
    all_threads_wait = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        if len(attempts) == 1 + READERS:
            all_threads_wait.set()
        await all_threads_wait.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        url = Secret(f"postgresql+psycopg://u:p@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable")
        async with running(url) as store:
            asked = [asyncio.ensure_future(ask(active_tasks)) for ask in (store.write, store.read) for _ in range(900)]
            results = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    assert len(attempts) == 1 + READERS


async def test_a_restart_between_two_requests_goes_unnoticed(server: Server, store: Store) -> None:
    before = await insert(store)
    await store.read(active_tasks)
    with server.away():
        pass
    after = await insert(store)
    assert await store.read(active_tasks) == [before, after]


async def test_a_connection_lost_before_the_commit_costs_nothing(store: Store) -> None:
    runs: list[int] = []

    def lose_it_once(conn: Connection) -> None:
        runs.append(1)
        tasks.insert(conn, task)
        if len(runs) == 1:
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    task = a_task()
    await store.write(lose_it_once)
    assert await store.read(active_tasks) == [task]
    assert len(runs) == 2


async def test_a_connection_lost_while_reading_is_replaced(store: Store) -> None:
    runs: list[int] = []

    def lose_it_once(conn: Connection) -> int:
        runs.append(1)
        if len(runs) == 1:
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return len(runs)

    assert await store.read(lose_it_once) == 2


async def test_a_connection_lost_again_and_again_is_reported(store: Store) -> None:
    def lose_it(conn: Connection) -> None:
        conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    for attempt in (store.write(lose_it), store.read(lose_it)):
        with pytest.raises(StoreUnavailable, match="57P01"):
            await attempt
    await insert(store)


async def test_a_server_that_hangs_is_not_waited_for_without_end(server: Server, url: Secret[str]) -> None:
    async with running(url, patience=timedelta(seconds=0.3)) as store:
        sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'credbroker'"
        backends = await store.write(lambda conn: conn.execute(text(sessions)).scalars().all())
        processes = [server.postgres.pid, *backends]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            for attempt in (store.write(active_tasks), store.read(active_tasks)):
                with pytest.raises(StoreUnavailable, match=r"within 0\.3 seconds"):
                    await attempt
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)


async def test_a_wrong_password_is_an_outage_without_the_password(postgres_url: Secret[str]) -> None:
    wrong = make_url(postgres_url.reveal()).set(password="hunter2").render_as_string(hide_password=False)
    async with running(Secret(wrong)) as store:
        with pytest.raises(StoreUnavailable, match="password authentication failed") as refused:
            await store.check()
        assert "hunter2" not in repr(refused.value) + str(refused.value)


async def test_a_file_that_is_gone_is_reported_and_not_made_anew(tmp_path: Path, sqlite_template: Path) -> None:
    file = tmp_path / "credbroker.db"
    async with running(Secret(f"sqlite:///{file}")) as store:
        await unavailable(store)
        assert not file.exists()
        shutil.copy(sqlite_template, file)
        task = await insert(store)
        assert await store.read(active_tasks) == [task]


async def test_a_file_that_somebody_else_holds_is_reported(
    sqlite_url: Secret[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.engine.BUSY_SECONDS", 0.05)
    async with running(sqlite_url) as holder, running(sqlite_url) as store:

        def try_meanwhile(conn: Connection) -> BaseException | None:
            return asyncio.run_coroutine_threadsafe(store.write(active_tasks), loop).exception()

        loop = asyncio.get_running_loop()
        error = await holder.write(try_meanwhile)
        assert isinstance(error, StoreUnavailable)
        assert "locked" in error.detail
        await insert(store)


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "credbroker.db"
    file.write_bytes(b"not a database" * 1000)
    async with running(Secret(f"sqlite:///{file}")) as store:
        with pytest.raises(StoreUnavailable, match="not a database"):
            await store.check()
