"""A TCP relay that can go silent as a network does, and lose the reply to a COMMIT."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field

_CHUNK = 64 * 1024


@dataclass
class LostCommit:
    """A COMMIT that the server gets and whose reply nobody does.

    Attributes:
        marker: What the transaction holds, such as a value of one of its rows.
        happened: Set once it was lost, with the connection.
    """

    marker: bytes
    happened: asyncio.Event = field(default_factory=asyncio.Event)


class Relay:
    """Forwards connections to a server on loopback.

    While it is cut, nothing is accepted, forwarded, answered or reset; what
    was on its way arrives when it is joined again, as TCP has it.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = host, port
        self._joined = asyncio.Event()
        self._joined.set()
        self._lost: LostCommit | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.host, self.port = "", 0

    async def start(self, listener: socket.socket | None = None) -> None:
        """Listen on loopback, or with a socket that is bound already."""
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()
        self._run(self._accept())

    async def stop(self) -> None:
        """End all connections."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._listener.close()

    def cut(self) -> None:
        """Let nothing through any more."""
        self._joined.clear()

    def join(self) -> None:
        """Let everything through again."""
        self._joined.set()

    def lose_commit(self, marker: str) -> LostCommit:
        """Lose the reply to the next COMMIT of a transaction that holds a text."""
        self._lost = LostCommit(marker.encode())
        return self._lost

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._joined.wait()
            client, _ = await loop.sock_accept(self._listener)
            self._run(self._connection(client))

    async def _connection(self, client: socket.socket) -> None:
        await self._joined.wait()
        from_client, to_client = await asyncio.open_connection(sock=client)
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            to_client.transport.abort()
            return
        losing: list[LostCommit] = []
        try:
            pumps = [
                asyncio.ensure_future(self._requests(from_client, to_server, losing)),
                asyncio.ensure_future(self._replies(from_server, to_client, losing)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            to_server.close()
            if losing:
                to_client.transport.abort()
                losing[0].happened.set()
            to_client.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: list[LostCommit]
    ) -> None:
        transaction = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._joined.wait()
                transaction += data
                if b"COMMIT" in data or b"ROLLBACK" in data:
                    if b"COMMIT" in data and self._lost is not None and self._lost.marker in transaction:
                        losing.append(self._lost)
                        self._lost = None
                    transaction = b""
                writer.write(data)
                await writer.drain()
            await self._joined.wait()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: list[LostCommit]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._joined.wait()
                if losing:
                    return
                writer.write(data)
                await writer.drain()
            await self._joined.wait()
