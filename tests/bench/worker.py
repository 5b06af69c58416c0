"""Client processes: load comes from outside of the process that measures and of the one that is measured.

A worker runs one coroutine function, ``work(link, **arguments)``, in a process
of its own. Parent and worker exchange lines of JSON over its standard input
and output; the worker ends when its input does, hence with its parent.
"""

import asyncio
import contextlib
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

_LONGEST_LINE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Where the servers are.

    Attributes:
        broker: ``host:port`` of its listener for callers with a token.
        vault: Base URL of OpenBao.
        reports: libpq connection string of the database that leased credentials are for, without a user.
        ca_file: CA certificate of the broker and of OpenBao.
    """

    broker: str
    vault: str
    reports: str
    ca_file: str


class Ended(Exception):
    """The other side is gone."""


class Link:
    """One end of the lines between a worker and its parent."""

    def __init__(self, reader: asyncio.StreamReader, send: Callable[[bytes], None]) -> None:
        self._reader = reader
        self._send = send

    def say(self, value: Any) -> None:
        """Send a value that JSON can hold."""
        self._send(json.dumps(value).encode() + b"\n")

    async def hear(self, seconds: float = 600) -> Any:
        """Return the next value.

        Raises:
            Ended: when there will be none.
            TimeoutError: when none comes in time.
        """
        async with asyncio.timeout(seconds):
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise Ended("a client process ended without an answer; it wrote why above")
        return json.loads(line)

    async def ended(self) -> None:
        """Wait until the other side has gone, or has said anything at all."""
        with contextlib.suppress(Ended):
            await self.hear()


Work = Callable[..., Awaitable[None]]


@asynccontextmanager
async def worker(work: Work, access: Access, **arguments: Any) -> AsyncIterator[Link]:
    """Run ``work(link, access, **arguments)`` in another process; it is killed at the end of the block.

    Args:
        work: A coroutine function at the top of a module.
        access: Where the servers are.
        arguments: What JSON can hold.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.worker",
        f"{work.__module__}:{work.__qualname__}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        # Ctrl-C in a terminal is for the parent, which ends it.
        start_new_session=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the worker has no pipes")
    link = Link(process.stdout, process.stdin.write)
    try:
        link.say({"access": asdict(access), "arguments": arguments})
        yield link
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _main(name: str) -> None:
    module, _, function = name.partition(":")
    work: Work = getattr(importlib.import_module(module), function)
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def send(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    link = Link(reader, send)
    order = await link.hear()
    await work(link, Access(**order["access"]), **order["arguments"])


if __name__ == "__main__":
    # The function lives in another module, which imports this one under its own name.
    from tests.bench import worker as itself

    with contextlib.suppress(itself.Ended):
        asyncio.run(itself._main(sys.argv[1]))
