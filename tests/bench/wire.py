"""Connections of a load generator: as little work as checking every reply allows.

What the generator computes is taken from the servers, which run on the same
cores. So there is one connection for each caller, with one request at a time on
it, written by hand: HTTP/2 (RFC 9113) with gRPC's framing for the broker,
HTTP/1.1 (RFC 9112) for OpenBao. Both check status and length of every reply and
return its content; what else a peer may do ends the measurement.
"""

import asyncio
import ssl
import struct
from collections.abc import Mapping
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

from tests.bench.hpack import fields_of, literal

C = TypeVar("C", bound="_Connection")

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_WINDOW: Final = 1 << 30
_DEFAULT_WINDOW: Final = 65_535


class WrongReply(Exception):
    """A server answered something else than it must."""


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None
        self._buffer = b""
        self._ended = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"the connection was closed: {exc}")

    def fail(self, why: str) -> None:
        self._ended = why
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WrongReply(why))

    def succeed(self, content: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(content)

    def expect(self) -> asyncio.Future[bytes]:
        if self._ended:
            raise WrongReply(self._ended)
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


class GrpcConnection(_Connection):
    """HTTP/2 with unary gRPC calls, one after the other."""

    def __init__(self, authority: str, token: str) -> None:
        super().__init__()
        self._fields = (
            literal(b":method", b"POST")
            + literal(b":scheme", b"https")
            + literal(b":authority", authority.encode())
            + literal(b"te", b"trailers")
            + literal(b"content-type", b"application/grpc")
            + literal(b"grpc-timeout", b"30S")
            + literal(b"authorization", b"Bearer " + token.encode())
        )
        self._heads: dict[str, bytes] = {}
        self._stream = -1
        self._room = _DEFAULT_WINDOW
        self._opened = False
        self._data = b""
        self._blocks_seen: dict[bytes, Mapping[bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Without a table, equal fields are equal bytes.
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _WINDOW)
        update = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        self.transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + update)

    async def call(self, method: str, message: bytes) -> bytes:
        """Return the reply to ``service/method``.

        Raises:
            WrongReply: when the status is not OK, or there is not exactly one message.
        """
        head = self._heads.get(method)
        if head is None:
            head = self._heads[method] = self._fields + literal(b":path", b"/" + method.encode())
        self._stream += 2
        self._opened, self._data = False, b""
        body = struct.pack(">BI", 0, len(message)) + message
        self._room -= len(body)
        if self._room < 0:
            raise WrongReply("the server takes no more")
        answer = self.expect()
        self.transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, head) + _frame(_DATA, _END_STREAM, self._stream, body)
        )
        data = await answer
        if len(data) < 5 or data[0] != 0 or int.from_bytes(data[1:5]) != len(data) - 5:
            raise WrongReply("not one message")
        return data[5:]

    def data_received(self, data: bytes) -> None:
        buffer, at = self._buffer + data, 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3])
            if len(buffer) - at < 9 + length:
                break
            kind, flags, stream = buffer[at + 3], buffer[at + 4], int.from_bytes(buffer[at + 5 : at + 9])
            self._received(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._on_data(flags, stream, payload)
        elif kind == _HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == _PING and not flags & _ACK:
            self.transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self.transport.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._room += int.from_bytes(payload)
        elif kind in (_GOAWAY, _RST_STREAM, _CONTINUATION):
            self.fail(f"a frame of kind {kind}: {payload!r}")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        if not self._awaits(stream) or not self._opened:
            self.fail("data that nobody asked for")
        elif flags & (_END_STREAM | _PADDED):
            self.fail("data without trailers after it, or with padding")
        else:
            self._data += payload

    def _on_headers(self, flags: int, stream: int, block: bytes) -> None:
        if not self._awaits(stream) or not flags & _END_HEADERS or flags & (_PADDED | _PRIORITY):
            self.fail("header fields that nobody asked for, or in a form that is not understood")
            return
        fields = self._blocks_seen.get(block)
        if fields is None:
            fields = self._blocks_seen[block] = _parsed(block)
        if flags & _END_STREAM:
            if fields.get(b"grpc-status") == b"0":
                self.succeed(self._data)
            else:
                self.fail(f"no call that went well: {dict(fields)}")
        elif self._opened or fields.get(b":status") != b"200" or fields.get(b"content-type") != b"application/grpc":
            self.fail(f"no reply of gRPC: {dict(fields)}")
        else:
            self._opened = True

    def _awaits(self, stream: int) -> bool:
        return stream == self._stream and self._answer is not None and not self._answer.done()


def _parsed(block: bytes) -> Mapping[bytes, bytes]:
    try:
        return fields_of(block)
    except (IndexError, ValueError):
        return {}


class HttpConnection(_Connection):
    """HTTP/1.1 with JSON, one request after the other."""

    def __init__(self, authority: str) -> None:
        super().__init__()
        self._host = authority.encode()

    async def post(self, path: str, body: bytes, token: str = "") -> tuple[int, bytes]:
        """Return status and content of the reply to a POST."""
        head = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        return await self._request(b"POST", path, token, head, body)

    async def get(self, path: str, token: str) -> tuple[int, bytes]:
        """Return status and content of the reply to a GET."""
        return await self._request(b"GET", path, token, b"", b"")

    async def _request(self, method: bytes, path: str, token: str, head: bytes, body: bytes) -> tuple[int, bytes]:
        named = b"X-Vault-Token: %s\r\n" % token.encode() if token else b""
        answer = self.expect()
        self.transport.write(
            b"%s %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n%s" % (method, path.encode(), self._host, named, head, body)
        )
        reply = await answer
        head, _, content = reply.partition(b"\r\n\r\n")
        return int(head[9:12]), content

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, content = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 ") or self._answer is None or self._answer.done():
            self.fail("not a reply to a request")
            return
        length = 0
        if head[9:12] != b"204":
            _, named, rest = head.lower().partition(b"\r\ncontent-length:")
            if not named:
                self.fail("a reply without a length")
                return
            length = int(rest.partition(b"\r\n")[0])
        if len(content) == length:
            reply, self._buffer = self._buffer, b""
            self.succeed(reply)
        elif len(content) > length:
            self.fail("more than was announced")


async def grpc_connection(address: str, context: ssl.SSLContext, token: str) -> GrpcConnection:
    """Connect to the broker at ``host:port``."""
    context.set_alpn_protocols(["h2"])
    return await _connect(GrpcConnection(address, token), address, context)


async def http_connection(url: str, context: ssl.SSLContext) -> HttpConnection:
    """Connect to OpenBao at ``https://host:port``."""
    authority = urlsplit(url).netloc
    return await _connect(HttpConnection(authority), authority, context)


async def _connect(connection: C, address: str, context: ssl.SSLContext) -> C:
    host, _, port = address.rpartition(":")
    await asyncio.get_running_loop().create_connection(lambda: connection, host, int(port), ssl=context)
    return connection
