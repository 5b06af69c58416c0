"""The load generator takes nothing for a good reply that is none."""

import asyncio
import struct

import pytest

from tests.bench.hpack import fields_of, literal
from tests.bench.wire import GrpcConnection, HttpConnection, WrongReply

DATA, HEADERS, RST_STREAM, GOAWAY, CONTINUATION = 0, 1, 3, 7, 9
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
OPENING = b"\x88" + b"\x5f\x10application/grpc"
GOOD = b"\x40" + literal(b"grpc-status", b"0")[1:]


class Transport(asyncio.Transport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def message(content: bytes) -> bytes:
    return struct.pack(">BI", 0, len(content)) + content


def opening(block: bytes = OPENING) -> bytes:
    return frame(HEADERS, END_HEADERS, block)


def trailers(block: bytes = GOOD) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, block)


async def called(*received: bytes) -> bytes:
    connection = GrpcConnection("127.0.0.1:1", "a token")
    connection.connection_made(Transport())
    call = asyncio.ensure_future(connection.call("a.Service/Method", b"ask"))
    await asyncio.sleep(0)
    for part in received:
        connection.data_received(part)
    async with asyncio.timeout(1):
        return await call


GOOD_REPLY = opening() + frame(DATA, 0, message(b"hello")) + trailers()


async def test_one_message_with_status_0_is_a_reply() -> None:
    assert await called(GOOD_REPLY) == b"hello"


async def test_a_reply_may_come_in_any_pieces() -> None:
    assert await called(*(GOOD_REPLY[at : at + 1] for at in range(len(GOOD_REPLY)))) == b"hello"


async def test_a_message_may_come_in_several_frames() -> None:
    data = message(b"hello")
    assert await called(opening(), frame(DATA, 0, data[:7]), frame(DATA, 0, data[7:]), trailers()) == b"hello"


BODY = frame(DATA, 0, message(b"hello"))
FALSE_STATUS = literal(b"grpc-message", b"\x0bgrpc-status\x010")


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(opening() + trailers(literal(b"grpc-status", b"7")), id="a gRPC error inside HTTP 200"),
        pytest.param(opening() + BODY + trailers(literal(b"grpc-status", b"14")), id="an error after a message"),
        pytest.param(trailers(OPENING + literal(b"grpc-status", b"16")), id="an error with trailers only"),
        pytest.param(trailers(OPENING + GOOD), id="success with trailers only"),
        pytest.param(opening() + BODY + trailers(FALSE_STATUS), id="a false status"),
        pytest.param(opening() + BODY + trailers(literal(b"grpc-status", b"00")), id="a status that begins with 0"),
        pytest.param(opening() + BODY + trailers(literal(b"x", b"y")), id="trailers without a status"),
        pytest.param(opening() + BODY + trailers(b"\xff\xff"), id="trailers that cannot be read"),
        pytest.param(opening() + frame(DATA, END_STREAM, message(b"hello")), id="no trailers"),
        pytest.param(opening() + trailers(), id="no message"),
        pytest.param(opening() + frame(DATA, 0, message(b"hello")[:-1]) + trailers(), id="a truncated message"),
        pytest.param(opening() + BODY + BODY + trailers(), id="two messages"),
        pytest.param(opening() + frame(DATA, 0, b"\x01" + message(b"a")[1:]) + trailers(), id="a compressed message"),
        pytest.param(opening() + frame(DATA, PADDED, b"\x00" + message(b"a")) + trailers(), id="padding"),
        pytest.param(BODY + trailers(), id="data before the header fields"),
        pytest.param(opening(literal(b":status", b"503") + OPENING[1:]) + BODY + trailers(), id="HTTP 503"),
        pytest.param(opening(b"\x88" + literal(b"content-type", b"text/html")) + BODY + trailers(), id="a web page"),
        pytest.param(opening() + opening() + BODY + trailers(), id="header fields twice"),
        pytest.param(frame(HEADERS, 0, OPENING), id="header fields to be continued"),
        pytest.param(opening() + frame(DATA, 0, message(b"hello"), 3) + trailers(), id="data of another stream"),
        pytest.param(frame(RST_STREAM, 0, b"\0\0\0\7"), id="a reset stream"),
        pytest.param(frame(GOAWAY, 0, bytes(8), 0), id="the end of the connection"),
    ],
)
async def test_anything_else_is_a_wrong_reply(reply: bytes) -> None:
    with pytest.raises(WrongReply):
        await called(reply)


async def test_a_lost_connection_is_a_wrong_reply() -> None:
    connection = GrpcConnection("127.0.0.1:1", "a token")
    connection.connection_made(Transport())
    call = asyncio.ensure_future(connection.call("a.Service/Method", b""))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    with pytest.raises(WrongReply):
        await call


async def test_what_comes_unasked_ends_the_connection() -> None:
    connection = GrpcConnection("127.0.0.1:1", "a token")
    connection.connection_made(Transport())
    call = asyncio.ensure_future(connection.call("a.Service/Method", b""))
    await asyncio.sleep(0)
    connection.data_received(GOOD_REPLY)
    assert await call == b"hello"
    connection.data_received(BODY)
    with pytest.raises(WrongReply):
        await connection.call("a.Service/Method", b"")


def test_fields_are_read_back() -> None:
    long = b"v" * 300
    assert fields_of(literal(b"name", long) + OPENING + b"\x20") == {
        b"name": long,
        b":status": b"200",
        b"content-type": b"application/grpc",
    }


@pytest.mark.parametrize("block", [b"\xbe", b"\x3f\xe1\x1f", b"\x00\x05ab", b"\x00"])
def test_fields_that_need_a_table_or_end_early_are_refused(block: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        fields_of(block)


def test_a_value_in_huffmans_code_equals_nothing() -> None:
    assert fields_of(b"\x00\x01a\x81\x07")[b"a"] not in (b"0", b"\x07")


async def asked(received: bytes) -> tuple[int, bytes]:
    connection = HttpConnection("127.0.0.1:1")
    connection.connection_made(Transport())
    call = asyncio.ensure_future(connection.post("/v1/x", b"{}", "a token"))
    await asyncio.sleep(0)
    connection.data_received(received)
    async with asyncio.timeout(1):
        return await call


async def test_status_and_content_of_a_reply() -> None:
    assert await asked(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") == (403, b"no")
    assert await asked(b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_a_reply_without_its_length_or_with_more_is_wrong(reply: bytes) -> None:
    with pytest.raises(WrongReply):
        await asked(reply)


async def test_a_reply_that_is_not_complete_is_awaited() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asked(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}")
