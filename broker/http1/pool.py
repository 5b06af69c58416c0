"""Keep-alive connections to one server, bounded in number; nothing is ever sent twice."""

import asyncio
import socket
import ssl
from collections import deque
from typing import Final
from urllib.parse import urlsplit

import aiohappyeyeballs
from aiohappyeyeballs import SocketFactoryType

from broker.http1.connection import Connection
from broker.http1.reply_reader import Reply

MAX_CONNECTIONS: Final = 128
KEEP_ALIVE_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 10.0
"""Longest time that connecting goes on, also after its caller has gone."""

_LAST_SECONDS = 1.0

# Before another address is tried at the same time (RFC 8305, section 8).
_NEXT_ADDRESS_SECONDS = 0.25


class CannotConnect(Exception):
    """No connection came about: nothing was sent. Says why."""


class Pool:
    """Connections to one server. To be made while an event loop runs.

    Args:
        url: ``http`` or ``https``, host and port count.
        tls: How to verify the server; for ``https``.
        open_socket: Opens the socket for an address, or raises an `OSError`
            where that must not be connected to; any socket by default.

    Raises:
        ValueError: when the URL's port is no number.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, open_socket: SocketFactoryType | None = None) -> None:
        parts = urlsplit(url)
        self._open_socket = open_socket
        secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if secure else 80)
        self._tls = tls if secure else None
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._open: set[Connection] = set()
        # The longest idle one first.
        self._idle: deque[Connection] = deque()
        self._making: set[asyncio.Task[Connection]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connecting(self) -> int:
        """How many connections are being made."""
        return len(self._making)

    async def exchange(self, request: bytes, limit: int) -> Reply:
        """Send a request once a connection is free, and return the reply; being cancelled closes the connection.

        Args:
            request: Head and content, as they are sent.
            limit: Most bytes of content in the reply.

        Raises:
            CannotConnect: when no connection came about.
            NoAnswer: when no whole reply came.
        """
        await self._places.acquire()
        making = None
        connection = self._take_idle()
        try:
            if connection is None:
                making = self._begin_connecting()
                connection = await asyncio.shield(making)
            try:
                return await connection.exchange(request, limit)
            finally:
                self._put_back(connection)
        finally:
            if making is None or connection is not None:
                self._places.release()
            else:
                making.add_done_callback(self._keep_for_others)

    async def close(self) -> None:
        """Close all connections; no other is made from now on."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        if self._making:
            _, slow = await asyncio.wait(self._making, timeout=_LAST_SECONDS)
            for making in slow:
                making.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        connections = list(self._open)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()
        self._open.clear()
        self._idle.clear()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._open.discard(connection)
        return None

    def _begin_connecting(self) -> asyncio.Task[Connection]:
        """Connect in a task of its own: cut off at the wrong moment, the event loop would lose the socket."""
        making = asyncio.create_task(self._connect(), name=f"connect to {self._host}")
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        return making

    def _keep_for_others(self, making: asyncio.Task[Connection]) -> None:
        """Keep a connection whose caller has gone; its place was held until now."""
        self._places.release()
        if not making.cancelled() and making.exception() is None:
            self._put_back(making.result())

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._open_one()
        except OSError as error:
            reason = str(error) or type(error).__name__
            raise CannotConnect(f"Cannot connect to {self._host}:{self._port}: {reason}") from None

    async def _open_one(self) -> Connection:
        addresses = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, socket_factory=self._open_socket
        )
        name = None if self._tls is None else self._host.rstrip(".")
        _, connection = await self._loop.create_connection(Connection, sock=sock, ssl=self._tls, server_hostname=name)
        if self._closed:
            connection.abort()
            await connection.wait_closed()
            raise CannotConnect("all connections were closed")
        self._open.add(connection)
        return connection

    def _put_back(self, connection: Connection) -> None:
        if not connection.usable:
            self._open.discard(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._expiry is None:
            self._expiry = self._loop.call_later(KEEP_ALIVE_SECONDS, self._expire)

    def _expire(self) -> None:
        oldest = self._loop.time() - KEEP_ALIVE_SECONDS
        while self._idle and (self._idle[0].idle_since <= oldest or not self._idle[0].usable):
            connection = self._idle.popleft()
            connection.abort()
            self._open.discard(connection)
        left = self._idle[0].idle_since - oldest if self._idle else None
        self._expiry = None if left is None else self._loop.call_later(left, self._expire)
