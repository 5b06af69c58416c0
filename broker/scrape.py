"""The listener that Prometheus scrapes: plain HTTP, one path, everything bounded.

It needs no identity and is not encrypted: it belongs on loopback or on a
network that only the scraper reaches. What it shows names nobody.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from broker.errors import ConfigError

PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 16
MAX_CONNECTION_SECONDS: Final = 10.0
MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"


class _Connections(web.Server):
    """Drops connections beyond a number, and each when its time is over."""

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        room = len(self.connections) <= MAX_CONNECTIONS
        asyncio.get_running_loop().call_later(MAX_CONNECTION_SECONDS if room else 0, transport.abort)


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

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path != PATH:
            return web.Response(status=404)
        if request.method != "GET":
            return web.Response(status=405, headers={"Allow": "GET"})
        return web.Response(body=render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    host, _, port = address.rpartition(":")
    runner = web.ServerRunner(_Connections(answer, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port), backlog=MAX_CONNECTIONS).start()
        except OSError as error:
            raise ConfigError(f"metrics.address: cannot listen on {address}: {error.strerror}") from None
        yield f"{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


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
