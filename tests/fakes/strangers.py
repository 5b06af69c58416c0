"""Strangers who mean harm, in a process of their own: silent connections, and streams that are reset at once.

``python -m tests.fakes.strangers silent|resets HOST:PORT COUNT`` prints
``ready`` once it is under way, goes on until its standard input ends, and then
prints what it did. HTTP/2 is written by hand (RFC 9113), since no client
library would misbehave like this.
"""

import asyncio
import contextlib
import resource
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fixtures.waiting import until

METHOD = "credbroker.v1.TaskService/StartTask"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_HEADERS, _ACK = 0x4, 0x1
_CANCEL = 8
# A ClientHello that goes on and on.
_HALF_A_HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252])
_TOGETHER = 50
_OPENING = 200
_REOPEN_SECONDS = 5


@dataclass
class Report:
    """What the strangers did."""

    done: int = 0
    closed: int = 0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def headers(method: str = METHOD) -> bytes:
    """Return the headers of a call, without compression (RFC 7541, section 6.2.2)."""
    return (
        bytes([0x83, 0x87])  # :method POST, :scheme https
        + bytes([0x04])
        + _text(f"/{method}".encode())
        + bytes([0x01])
        + _text(b"localhost")
        + bytes([0x0F, 0x10])
        + _text(b"application/grpc")
        + bytes([0x00])
        + _text(b"te")
        + _text(b"trailers")
    )


def greeting() -> bytes:
    """Return what a client says first."""
    return _PREFACE + frame(_SETTINGS, 0, 0)


def ping(number: int) -> bytes:
    """Return a ping."""
    return frame(_PING, 0, 0, struct.pack("!Q", number))


def opened_and_reset(stream: int) -> bytes:
    """Return the beginning of a call and its end."""
    return frame(_HEADERS, _END_HEADERS, stream, headers()) + frame(_RST_STREAM, 0, stream, struct.pack("!I", _CANCEL))


def tls() -> ssl.SSLContext:
    """Return what connects to anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def silent(host: str, port: int, count: int, report: Report, source: str | None = None) -> None:
    """Keep so many connections open that began a handshake and say no more; whichever is closed is opened again."""
    opening = asyncio.Semaphore(_OPENING)

    async def hold() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with opening:
                    reader, writer = await asyncio.open_connection(
                        host, port, local_addr=(source, 0) if source else None
                    )
                report.done += 1
                writer.write(_HALF_A_HELLO)
                await reader.read()
                writer.close()
            report.closed += 1
            await asyncio.sleep(_REOPEN_SECONDS)

    async with asyncio.TaskGroup() as holders:
        for _ in range(count):
            holders.create_task(hold())


async def resets(host: str, port: int, count: int, report: Report, per_second: float | None = None) -> None:
    """Open calls and reset them at once over so many connections; on each so many, or as fast as the server reads."""
    pause = _TOGETHER / per_second if per_second else 0

    async def flood() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls())
                await _flood(reader, writer, report, pause)
                writer.transport.abort()
            report.closed += 1
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as floods:
        for _ in range(count):
            floods.create_task(flood())


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, report: Report, pause: float) -> None:
    writer.write(greeting())
    answering = asyncio.create_task(answer(reader, writer))
    stream = 1
    while not answering.done() and stream < 2**31 - 2 * _TOGETHER:
        writer.write(b"".join(opened_and_reset(stream + 2 * number) for number in range(_TOGETHER)))
        await writer.drain()
        await asyncio.sleep(pause)
        report.done += _TOGETHER
        stream += 2 * _TOGETHER
    answering.cancel()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Acknowledge settings and pings, until the connection ends."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags = head[3], head[4]
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                writer.write(frame(kind, _ACK, 0, payload if kind == _PING else b""))


async def main(misdeed: str, address: str, count: int) -> Report:
    """Go on until standard input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    host, _, port = address.rpartition(":")
    report = Report()
    misdeeds: dict[str, Callable[[str, int, int, Report], Awaitable[None]]] = {"silent": silent, "resets": resets}
    work = asyncio.ensure_future(misdeeds[misdeed](host, int(port), count, report))
    await until(lambda: report.done >= count or work.done())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return report


if __name__ == "__main__":
    done = asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    sys.stdout.write(f"{done.done} {done.closed}\n")
