"""The listener that Prometheus scrapes: plain HTTP, one path, everything bounded.

It needs no identity and is not encrypted: it belongs on loopback or on a
network that only the scraper reaches. What it shows names nobody.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from broker.errors import ConfigError

PATH: Final = b"/metrics"
MAX_CONNECTIONS: Final = 16
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CONNECTION_SECONDS: Final = 10.0
MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"


@asynccontextmanager
async def listening(address: str, render: Callable[[], bytes]) -> AsyncIterator[str]:
    """Answer scrapes while inside.

    Args:
        address: ``host:port``; port 0 picks a free one.
        render: Returns the metrics in Prometheus' text format.

    Yields:
        The address, with the port that was given.

    Raises:
        ConfigError: when the address is taken or not this machine's.
    """
    answering: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(answering) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(_answer(reader, writer, render), name="scrape")
        answering.add(task)
        task.add_done_callback(answering.discard)

    host, _, port = address.rpartition(":")
    try:
        server = await asyncio.start_server(
            connected, host.strip("[]"), int(port), limit=MAX_HEAD_BYTES, backlog=MAX_CONNECTIONS
        )
    except OSError as error:
        raise ConfigError(f"metrics.address: cannot listen on {address}: {error.strerror}") from None
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, render: Callable[[], bytes]) -> None:
    """Answer one request and close the connection; drop it when that takes too long."""
    try:
        async with asyncio.timeout(MAX_CONNECTION_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_reply(head, render))
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
        pass  # whoever asked is gone, slow, or no scraper
    finally:
        writer.transport.abort()


def _reply(head: bytes, render: Callable[[], bytes]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    status, fields, body = HTTPStatus.OK, f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n", b""
    if path != PATH:
        status, fields = HTTPStatus.NOT_FOUND, ""
    elif method != b"GET":
        status, fields = HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET\r\n"
    else:
        body = render()
    begin = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{fields}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return begin.encode("ascii") + body


@asynccontextmanager
async def serve_metrics(address: str, multiprocess_dir: Path) -> AsyncIterator[str]:
    """Answer scrapes for several processes together, while inside.

    Each of them has `MULTIPROCESS` in its environment from its start, with this
    directory, which was empty when the first of them began.

    Args:
        address: ``host:port``; port 0 picks a free one.
        multiprocess_dir: Where the processes leave their figures.

    Yields:
        The address, with the port that was given.

    Raises:
        ConfigError: when the address is taken or not this machine's.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(multiprocess_dir))  # type: ignore[no-untyped-call]  # published without its type
    async with listening(address, lambda: generate_latest(registry)) as bound:
        yield bound


def forget_process(pid: int, multiprocess_dir: Path) -> None:
    """Take a process that has ended out of what is said of the present; what it counted stays."""
    mark_process_dead(pid, path=str(multiprocess_dir))  # type: ignore[no-untyped-call]  # published without its type


def one_of_several() -> bool:
    """Say whether this process is measured together with others, by the one that started them."""
    return MULTIPROCESS in os.environ
