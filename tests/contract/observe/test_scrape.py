"""The listener of the metrics: what it answers, and what it bounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from broker import scrape
from broker.errors import ConfigError
from broker.scrape import MAX_CONNECTIONS, MAX_HEAD_BYTES, listening


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with listening("127.0.0.1:0", lambda: b"up 1\n") as bound:
        yield bound


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/metrics", 200), ("POST", "/metrics", 405), ("GET", "/", 404), ("GET", "/metrics/", 404)],
)
async def test_one_path_answers_and_to_one_method(address: str, method: str, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, f"http://{address}{path}") as reply:
        assert reply.status == status
        if status == 200:
            assert await reply.text() == "up 1\n"
            assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("sent", "begins"),
    [
        (b"GET /metrics?name=up HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"\x16\x03\x01\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"GET /metrics HTTP/1.1\r\n", b""),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, b""),
    ],
    ids=["a query", "no HTTP", "half a request", "too long a head"],
)
async def test_whatever_is_sent_the_connection_ends(address: str, sent: bytes, begins: bytes) -> None:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(begins)
    assert bool(answer) == bool(begins)


async def test_connections_are_few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "MAX_CONNECTION_SECONDS", 1.0)
    async with listening("127.0.0.1:0", lambda: b"up 1\n") as address:
        host, port = address.split(":")
        started = asyncio.get_running_loop().time()
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS + 1)]
        ended: list[float] = []
        for reader, writer in reversed(silent):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            ended.append(asyncio.get_running_loop().time() - started)
            writer.close()

        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as reply:
            assert reply.status == 200
    assert ended[0] < 1.0 <= ended[-1]


async def test_a_taken_address_is_a_mistake_in_the_configuration(address: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.address: cannot listen on"):
        async with listening(address, lambda: b""):
            pass
