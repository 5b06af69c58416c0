"""What strangers and careless clients send is cut off, in bounded memory and time."""

import asyncio
import contextlib
import sys
from pathlib import Path

import grpc
import pytest
from credbroker.v1 import credential_service_pb2, task_pb2, task_service_pb2

from broker.serve import options, reading
from broker.serve.public import MAX_PUBLIC_CALLS
from tests.contract.serve.harness import GOOD, START, Harness, refused, send
from tests.fixtures.waiting import until

ISSUE = "credbroker.v1.CredentialService/IssueCredential"
BOMB_BYTES = 200 * 1024 * 1024

# Sends one message of zeros, compressed, and prints the status.
BOMB = """
import sys, grpc
port, authority, method, size = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(authority, "rb").read())
credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials("agent-token"))
with grpc.secure_channel("127.0.0.1:" + port, credentials) as channel:
    try:
        channel.unary_unary("/" + method)(bytes(int(size)), compression=grpc.Compression.Gzip)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


def forget_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the most memory that this process held since it was forgotten, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


def field(number: int, content: bytes) -> bytes:
    """Encode a field of text, bytes or a message."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def filled(size: int) -> bytes:
    """Return a good request of exactly this size: a field that nobody knows is skipped."""
    overhead = len(field(15, bytes(size // 2))) - size // 2
    message = GOOD + field(15, bytes(size - len(GOOD) - overhead))
    assert len(message) == size
    return message


async def test_largest_message_is_taken_and_a_larger_one_refused(running: Harness, agent: grpc.aio.Channel) -> None:
    limit = running.limits.max_message_bytes
    await send(agent, message=filled(limit))
    assert (await refused(send(agent, message=filled(limit + 1)))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await running.until_idle()
    assert len(running.tasks.calls) == 1
    assert running.trail.events == []


async def test_compressed_messages_are_understood(running: Harness, agent: grpc.aio.Channel) -> None:
    await send(agent, compression=grpc.Compression.Gzip)


async def test_bomb_is_refused_in_constant_memory(running: Harness, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(running.authority.certificate_pem)
    forget_peak_memory()
    before = peak_memory()
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BOMB,
        str(running.ports.bearer),
        str(authority),
        START,
        str(BOMB_BYTES),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await client.communicate()
    assert told.startswith(b"RESOURCE_EXHAUSTED")
    assert peak_memory() - before < BOMB_BYTES // 8
    assert running.tasks.calls == []


@pytest.mark.parametrize("size", [options.MAX_METADATA_BYTES, 1024 * 1024])
async def test_huge_headers_are_refused(running: Harness, size: int) -> None:
    """gRPC shows what fitted and then cancels: the good evidence beside must not be enough to act."""
    huge = [("authorization", "Bearer " + "a" * size)]
    async with running.channel(token=None) as stranger, running.mutual_channel() as known:
        for channel in (stranger, known):
            assert (await refused(send(channel, metadata=huge))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.until_idle()
    assert running.tasks.calls == []
    assert {event.reason for event in running.trail.events} <= {"EVIDENCE_MISSING"}


async def test_the_longest_token_fits_into_the_headers(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        told = await refused(send(channel, metadata=[("authorization", "Bearer " + "a" * 16 * 1024)]))
    assert told.reason == "EVIDENCE_INVALID"
    assert len(running.identify.seen) == 1


@pytest.mark.parametrize(
    "message",
    [
        field(2, field(1, b"lone \xed\xa0\x80 surrogate")),
        field(2, field(1, b"\xff\xfe")),
        field(2, field(1, b"overlong \xc0\x80 nul")),
        b"\xff\xff\xff\xff",
        GOOD[:-1],
    ],
)
async def test_messages_that_cannot_be_parsed(running: Harness, agent: grpc.aio.Channel, message: bytes) -> None:
    told = await refused(send(agent, message=message))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert [event.reason for event in running.trail.events] == ["INVALID_ARGUMENT"]
    assert running.tasks.calls == []


async def test_nul_in_text_is_refused_and_the_field_named(running: Harness, agent: grpc.aio.Channel) -> None:
    message = task_service_pb2.StartTaskRequest(spec=task_pb2.TaskSpec(purpose="a\0b"))
    assert (await refused(send(agent, message=message.SerializeToString()))).violations == ["spec.purpose"]


def nested(levels: int) -> bytes:
    """Encode a Struct in Structs, which the library would not make this deep."""
    struct = b""
    for _ in range(levels):
        struct = field(1, field(1, b"a") + field(2, field(5, struct)))
    return struct


@pytest.mark.parametrize(("levels", "violations"), [(8, 1), (30, 1), (40, 0), (1000, 0)])
async def test_deep_parameters_are_refused(
    running: Harness, agent: grpc.aio.Channel, levels: int, violations: int
) -> None:
    # Beyond some depth, protobuf itself does not parse the message.
    request = credential_service_pb2.IssueCredentialRequest(new_task=task_pb2.TaskSpec(purpose="x"), scope="a")
    told = await refused(send(agent, ISSUE, request.SerializeToString() + field(5, nested(levels))))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(told.violations) == violations
    assert running.issuer.calls == []


async def test_client_that_never_sends_its_message_is_sent_away(
    running: Harness, agent: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_TIMEOUT", 0.2)
    stream: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = agent.stream_unary(f"/{START}")
    call = stream()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [event.detail for event in running.trail.events] == ["the request's message must arrive within 0 seconds"]
    await running.until_idle()


async def test_client_that_ends_without_a_message_is_refused(running: Harness, agent: grpc.aio.Channel) -> None:
    stream: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = agent.stream_unary(f"/{START}")
    call = stream()
    await call.done_writing()
    await running.until_sleeping(2)
    running.tick(1)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [event.detail for event in running.trail.events] == ["the request must have a message"]


async def test_connections_that_say_nothing_are_dropped(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "HANDSHAKE_TIMEOUT_MS", 1000)
    await harness.start()
    silent = [await asyncio.open_connection("127.0.0.1", port) for port in (harness.ports.bearer, harness.ports.mutual)]
    silent_after_tls = await asyncio.open_connection(
        "127.0.0.1", harness.ports.bearer, ssl=harness.tls_context(), server_hostname="127.0.0.1"
    )
    async with asyncio.timeout(5):
        for reader, writer in (*silent, silent_after_tls):
            while await reader.read(1024):
                pass
            writer.close()


async def test_connections_are_bounded(harness: Harness) -> None:
    harness.limits = harness.limits.model_copy(update={"max_connections": 2})
    await harness.start()
    async with harness.channel() as first, harness.channel() as second:
        await send(first)
        await send(second)
        # Closed at once: a silent connection that was let in would stay for five seconds.
        async with asyncio.timeout(options.HANDSHAKE_TIMEOUT_MS / 2000):
            reader, writer = await asyncio.open_connection("127.0.0.1", harness.ports.bearer)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        await send(first)


async def test_watchers_of_health_are_bounded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "MAX_STREAMS_PER_CONNECTION", 2 * MAX_PUBLIC_CALLS)
    await harness.start()
    async with harness.channel(token=None) as channel:
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watchers = [watch(b"") for _ in range(MAX_PUBLIC_CALLS)]
        for watcher in watchers:
            await watcher.read()
        assert await watch(b"").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await send(channel, "grpc.health.v1.Health/Check", b"")
        watchers[0].cancel()
    async with harness.channel() as channel:
        await send(channel)


async def test_streams_of_one_connection_are_bounded(running: Harness) -> None:
    running.tasks.pause()
    async with running.channel() as channel, running.channel() as other:
        held = [send(channel) for _ in range(options.MAX_STREAMS_PER_CONNECTION + 1)]
        await until(lambda: len(running.identify.seen) == options.MAX_STREAMS_PER_CONNECTION)
        await send(other, "credbroker.v1.TaskService/ListTasks", b"", timeout=0.2).code()
        assert len(running.identify.seen) == options.MAX_STREAMS_PER_CONNECTION + 1
        running.tasks.resume()
        await asyncio.gather(*held)
