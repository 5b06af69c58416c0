"""One connection to a server: whatever leaves in doubt what comes next on it closes it."""

import asyncio
from typing import cast

from broker.http1.reply_reader import NoAnswer, Reply, ReplyReader


class Connection(asyncio.Protocol):
    """A connection with at most one request under way. To be made while an event loop runs.

    Attributes:
        idle_since: When its last exchange ended, for its owner to set.
    """

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._reader = ReplyReader()
        self._answer: asyncio.Future[Reply] | None = None
        self._ended = False

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return not self._ended and self._answer is None

    async def exchange(self, request: bytes, limit: int) -> Reply:
        """Send a request and return the reply; being cancelled closes the connection.

        Args:
            request: Head and content, as they are sent.
            limit: Most bytes of content in the reply.

        Raises:
            NoAnswer: when no whole reply came.
        """
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._answer = answer
        self._reader.begin(limit)
        in_doubt = True
        try:
            self._transport.write(request)
            reply = await answer
            in_doubt = not self._reader.keeps_alive
            return reply
        finally:
            self._answer = None
            if in_doubt:
                self.abort()

    def abort(self) -> None:
        """Close it at once."""
        self._ended = True
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        await asyncio.shield(self._closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop, as are those that follow."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on; what nobody asked for closes the connection."""
        answer = self._answer
        if answer is None or answer.done():
            self.abort()
            return
        try:
            self._reader.feed(data)
        except NoAnswer as error:
            answer.set_exception(error)
            return
        if self._reader.whole:
            answer.set_result(self._reader.take())

    def eof_received(self) -> None:
        """Take the end of the stream for the end of a reply, where it is one."""
        self._ended = True
        self._reader.end()
        if self._reader.whole and self._answer is not None and not self._answer.done():
            self._answer.set_result(self._reader.take())

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait any longer."""
        self._ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswer("the connection was closed"))
        self._closed.set_result(None)
