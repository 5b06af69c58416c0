"""Connections to a server that says what no HTTP library would let it say, on both event loops."""

import asyncio
import gc
import random
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvloop

from broker.dev.pki import DevAuthority
from broker.http1 import pool as pools
from broker.http1.pool import CannotConnect, Pool
from broker.http1.reply_reader import MAX_HEAD_BYTES, NoAnswer, Reply
from tests.contract.mint.world import until

REQUEST = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\n{}"
LIMIT = 1000

# Does what it does with each request, on a connection of its own number.
Script = Callable[["Server", int, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


class Server:
    """Answers by a script, and counts.

    Attributes:
        requests: The connection that each request came on, by number.
        closed: Numbers of the connections that the client has closed.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[int] = []
        self.closed: list[int] = []
        self.opened = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.opened
        self.opened += 1
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(number)
                await self._script(self, number, writer)
        except (asyncio.IncompleteReadError, OSError):
            self.closed.append(number)
        finally:
            writer.close()

    async def all_closed(self) -> bool:
        return len(self.closed) == self.opened


@asynccontextmanager
async def serving(
    script: Script, tls: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[Pool]:
    server = Server(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    pool = Pool(f"{'https' if tls else 'http'}://127.0.0.1:{port}", client or ssl.create_default_context())
    SERVERS[pool] = server
    try:
        yield pool
    finally:
        await pool.close()
        await until(server.all_closed)
        listening.close()
        await listening.wait_closed()


SERVERS: dict[Pool, Server] = {}


def says(*parts: bytes) -> Script:
    """Answer every request with these parts, sent one by one."""

    async def script(server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return script


def says_and_closes(answer: bytes) -> Script:
    async def script(server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()
        server.closed.append(number)
        raise asyncio.CancelledError

    return script


async def is_silent(server: Server, number: int, writer: asyncio.StreamWriter) -> None:
    """Never answer."""


def each(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[index : index + 1] for index in range(len(data)))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nDate: trailer\r\n\r\n"
TAKEN: dict[str, tuple[tuple[bytes, ...], Reply]] = {
    "whole": ((WHOLE,), Reply(200, "d", b"{}")),
    "byte by byte": (each(WHOLE), Reply(200, "d", b"{}")),
    "in chunks": ((CHUNKED,), Reply(200, None, b"{}")),
    "in chunks, byte by byte": (each(CHUNKED), Reply(200, None, b"{}")),
    "without content": ((b"HTTP/1.1 204 No Content\r\nDATE: a\r\nDate: b\r\n\r\n",), Reply(204, "a", b"")),
    "after an interim one": ((b"HTTP/1.1 103 Early Hints\r\n\r\n", WHOLE), Reply(200, "d", b"{}")),
    "just not too much": (
        (b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n" + b"x" * LIMIT,),
        Reply(500, None, b"x" * LIMIT),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_reply_is_taken_and_the_connection_kept(run: Run, name: str) -> None:
    parts, reply = TAKEN[name]

    async def scenario() -> None:
        async with serving(says(*parts)) as pool:
            assert [await pool.exchange(REQUEST, LIMIT) for _ in range(3)] == [reply] * 3
            assert SERVERS[pool].requests == [0, 0, 0]

    run(scenario())


CLOSING = {
    "said": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", CLOSING)
def test_a_connection_that_the_server_gives_up_is_not_used_again(run: Run, name: str) -> None:
    async def scenario() -> None:
        async with serving(says(CLOSING[name])) as pool:
            for _ in range(2):
                assert (await pool.exchange(REQUEST, LIMIT)).content == b"{}"
            assert SERVERS[pool].requests == [0, 1]

    run(scenario())


def test_content_of_unsaid_length_ends_with_the_connection(run: Run) -> None:
    async def scenario() -> None:
        async with serving(says_and_closes(b"HTTP/1.1 200 OK\r\n\r\n{}")) as pool:
            for _ in range(2):
                assert await pool.exchange(REQUEST, LIMIT) == Reply(200, None, b"{}")
            assert SERVERS[pool].requests == [0, 1]

    run(scenario())


REFUSED: dict[str, bytes] = {
    "no HTTP": b"<html>",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "lines without their ends": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a second one": WHOLE + WHOLE,
    "something behind it": WHOLE + b"x",
    "too much": b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
    "a head without end": b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_HEAD_BYTES,
    "interim ones without end": b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_HEAD_BYTES // 10),
    "chunks of next to nothing": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"1;" + b"x" * 1000 + b"\r\n{\r\n") * 100,
    "trailers without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"a: b\r\n" * MAX_HEAD_BYTES,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_reply_is_refused_and_the_connection_closed(run: Run, name: str) -> None:
    async def scenario() -> None:
        async with serving(says(REFUSED[name])) as pool:
            with pytest.raises(NoAnswer):
                await pool.exchange(REQUEST, LIMIT)
            await until(SERVERS[pool].all_closed)
            assert SERVERS[pool].requests == [0]

    run(scenario())


CUT = {
    "nothing": b"",
    "half a head": WHOLE[:30],
    "half of the content": WHOLE[:-1],
    "half of the content, on closing": CLOSING["said"][:-1],
    "half of the chunks": CHUNKED[:60],
}


@pytest.mark.parametrize("name", CUT)
def test_a_reply_that_is_cut_off_is_none_and_nothing_is_sent_again(run: Run, name: str) -> None:
    async def scenario() -> None:
        async def script(server: Server, number: int, writer: asyncio.StreamWriter) -> None:
            answer = says_and_closes(CUT[name]) if len(server.requests) == 2 else says(WHOLE)
            await answer(server, number, writer)

        async with serving(script) as pool:
            await pool.exchange(REQUEST, LIMIT)
            with pytest.raises(NoAnswer):
                await pool.exchange(REQUEST, LIMIT)
            assert SERVERS[pool].requests == [0, 0]
            await pool.exchange(REQUEST, LIMIT)
            assert SERVERS[pool].requests == [0, 0, 1]

    run(scenario())


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "spoken on"])
def test_a_connection_that_ended_while_idle_fails_no_request(run: Run, *, closes: bool) -> None:
    async def scenario() -> None:
        async with serving(says(WHOLE)) as pool:
            server = SERVERS[pool]
            await pool.exchange(REQUEST, LIMIT)
            if closes:
                server.writers[0].close()
            else:
                server.writers[0].write(WHOLE)
            await until(server.all_closed)
            assert (await pool.exchange(REQUEST, LIMIT)).status == 200
            assert server.requests == [0, 1]

    run(scenario())


def test_a_call_that_is_given_up_closes_its_connection(run: Run) -> None:
    async def scenario() -> None:
        async with serving(is_silent) as pool:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await pool.exchange(REQUEST, LIMIT)
                await until(SERVERS[pool].all_closed)
            assert SERVERS[pool].requests == [0, 1]

    run(scenario())


def test_connections_are_bounded_and_calls_wait_for_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        release = asyncio.Event()

        async def script(server: Server, number: int, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            writer.write(WHOLE)

        async with serving(script) as pool:
            server = SERVERS[pool]
            calls = [asyncio.create_task(pool.exchange(REQUEST, LIMIT)) for _ in range(6)]

            async def both_are_busy() -> bool:
                return len(server.requests) == 2

            await until(both_are_busy)
            calls.pop().cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await pool.exchange(REQUEST, LIMIT)
            release.set()
            assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
            assert (server.opened, len(server.requests)) == (2, 5)

    run(scenario())


def test_idle_connections_are_closed_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "KEEP_ALIVE_SECONDS", 0.05)

    async def scenario() -> None:
        async with serving(says(WHOLE)) as pool:
            server = SERVERS[pool]
            for round_ in (1, 2):
                await asyncio.gather(*(pool.exchange(REQUEST, LIMIT) for _ in range(3)))
                assert server.opened == 3 * round_
                await until(server.all_closed)

    run(scenario())


def test_nothing_is_sent_once_all_is_closed(run: Run) -> None:
    async def scenario() -> None:
        async with serving(is_silent) as pool:
            call = asyncio.create_task(pool.exchange(REQUEST, LIMIT))

            async def is_sent() -> bool:
                return SERVERS[pool].requests == [0]

            await until(is_sent)
            await pool.close()
            with pytest.raises(NoAnswer):
                await call
            with pytest.raises(CannotConnect):
                await pool.exchange(REQUEST, LIMIT)
            assert SERVERS[pool].requests == [0]

    run(scenario())


def tls_of(folder: Path, why: str = "") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return how a server shows who it is, and how a client verifies it; which fails for that reason."""
    authority, client = DevAuthority(), ssl.create_default_context()
    chain = folder / "chain.pem"
    chain.write_bytes(b"".join(authority.issue(addresses=["127.0.0.2" if why == "another name" else "127.0.0.1"])))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain)
    if why == "an old version":
        client.minimum_version = ssl.TLSVersion.TLSv1_3
        server.maximum_version = ssl.TLSVersion.TLSv1_2
    if why != "an unknown authority":
        client.load_verify_locations(cadata=authority.certificate_pem.decode())
    return server, client


def test_a_server_that_can_be_trusted_is_asked(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(says(WHOLE), *tls_of(tmp_path)) as pool:
            assert [(await pool.exchange(REQUEST, LIMIT)).status for _ in range(2)] == [200, 200]
            assert SERVERS[pool].requests == [0, 0]

    run(scenario())


@pytest.mark.parametrize("why", ["another name", "an unknown authority", "an old version"])
def test_a_server_that_cannot_be_trusted_gets_no_request(run: Run, tmp_path: Path, why: str) -> None:
    async def scenario() -> None:
        async with serving(says(WHOLE), *tls_of(tmp_path, why)) as pool:
            with pytest.raises(CannotConnect, match=r"Cannot connect to 127\.0\.0\.1:[0-9]+: \S+"):
                await pool.exchange(REQUEST, LIMIT)
            assert SERVERS[pool].requests == []

    run(scenario())


def test_a_connection_whose_caller_has_gone_serves_others(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(says(WHOLE), *tls_of(tmp_path)) as pool:

            async def connected() -> bool:
                return pool.connecting == 0

            asking = asyncio.create_task(pool.exchange(REQUEST, LIMIT))
            await asyncio.sleep(0)
            assert pool.connecting == 1
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(connected)
            assert (await pool.exchange(REQUEST, LIMIT)).status == 200
            assert (SERVERS[pool].opened, SERVERS[pool].requests) == (1, [0])

    run(scenario())


@pytest.mark.long
def test_no_socket_is_lost_whenever_callers_go(tmp_path: Path) -> None:
    server, client = tls_of(tmp_path)
    chance = random.Random(1)

    async def scenario(port: int) -> None:
        pool = Pool(f"https://127.0.0.1:{port}", client)
        asking = [asyncio.create_task(pool.exchange(REQUEST, LIMIT)) for _ in range(6)]
        await asyncio.sleep(chance.uniform(0, 0.004))
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await pool.close()

    with threaded(server) as port, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(400):
            asyncio.run(scenario(port))
        gc.collect()
    assert [str(one.message) for one in seen if "unclosed" in str(one.message)] == []


@contextmanager
def threaded(tls: ssl.SSLContext) -> Iterator[int]:
    """Serve on a thread of its own, so that the client's event loop can end at any moment."""
    started: Future[int] = Future()
    ended, loop = asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        listening = await asyncio.start_server(Server(says(WHOLE)).serve, "127.0.0.1", 0, ssl=tls)
        started.set_result(listening.sockets[0].getsockname()[1])
        await ended.wait()
        listening.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield started.result(10)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
