"""From start to drain: what is checked first, what health says, and who may still finish."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from broker.errors import ConfigError, StoreUnavailable
from broker.serve import health, server
from broker.serve.access import AccessTable, access_table
from tests.contract.serve.harness import Harness, refused, send

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
NAMES = ("Task", "Credential", "Scope", "Lock", "Revocation", "Status", "Audit")
SERVICES = [f"credbroker.v1.{name}Service" for name in NAMES]


async def status(channel: grpc.aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    raw = await send(channel, f"{HEALTH}/Check", request.SerializeToString())
    return health_pb2.HealthCheckResponse.FromString(raw).status


class Watch:
    """One stream of health, read change by change."""

    def __init__(self, channel: grpc.aio.Channel, service: str = "") -> None:
        callable_: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{HEALTH}/Watch")
        self._call = callable_(health_pb2.HealthCheckRequest(service=service).SerializeToString())
        self._replies: AsyncIterator[bytes] = self._call.__aiter__()

    async def next(self) -> int:
        return health_pb2.HealthCheckResponse.FromString(await anext(self._replies)).status

    def is_open(self) -> bool:
        return not self._call.done()

    async def end(self) -> grpc.StatusCode:
        """Read on until the server ends the stream."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                await self.next()
        return await self._call.code()

    async def until(self, wanted: int) -> None:
        while await self.next() != wanted:
            pass


async def test_health_follows_readiness_and_needs_no_identity(harness: Harness) -> None:
    harness.readiness.error = StoreUnavailable("not yet")
    await harness.start()
    async with harness.channel(token=None) as channel:
        watch = Watch(channel)
        assert await watch.next() == NOT_SERVING
        for error, expected in (
            (None, SERVING),
            (StoreUnavailable("gone"), NOT_SERVING),
            (None, SERVING),
            (RuntimeError("a bug"), NOT_SERVING),
        ):
            harness.readiness.error = error
            await harness.until_sleeping(1)
            harness.tick(health.POLL_SECONDS)
            assert await watch.next() == expected
        assert await status(channel) == NOT_SERVING
    assert harness.identify.seen == []
    assert harness.trail.events == []


async def test_every_service_has_its_health(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        await Watch(channel, SERVICES[-1]).until(SERVING)
        assert {await status(channel, service) for service in ["", *SERVICES]} == {SERVING}
        assert (await refused(send(channel, f"{HEALTH}/Check", b"\n\x01x"))).code is grpc.StatusCode.NOT_FOUND
        assert (await refused(send(channel, f"{HEALTH}/List", b""))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_check_that_hangs_is_not_ready(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.1)
    await harness.start()
    async with harness.channel(token=None) as channel:
        watch = Watch(channel)
        await watch.until(SERVING)
        harness.readiness.hang()
        await harness.until_sleeping(1)
        harness.tick(health.POLL_SECONDS)
        assert await watch.next() == NOT_SERVING


async def test_not_serving_until_the_first_check_has_passed(harness: Harness) -> None:
    harness.readiness.hang()
    await harness.start()
    async with harness.channel(token=None) as channel:
        assert {await status(channel, service) for service in ["", *SERVICES]} == {NOT_SERVING}


async def test_readiness_is_logged_when_it_changes_only(harness: Harness) -> None:
    harness.readiness.error = StoreUnavailable("gone")
    with structlog.testing.capture_logs() as logged:
        await harness.start()
        for _ in range(3):
            await harness.until_sleeping(1)
            harness.tick(health.POLL_SECONDS)
        await harness.until_sleeping(1)
        harness.readiness.error = None
        harness.tick(health.POLL_SECONDS)
        await harness.until_sleeping(1)
    assert [line["event"] for line in logged if line["event"] != "listening"] == ["not ready", "ready"]


async def test_garbage_for_a_public_call_is_refused_without_an_event(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        told = await refused(send(channel, f"{HEALTH}/Check", b"\xff\xff"))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert running.trail.events == []


def reflect(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    callable_: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        f"/{REFLECTION}/ServerReflectionInfo"
    )
    return callable_()


async def test_reflection_answers_only_when_enabled(harness: Harness) -> None:
    await harness.start()
    async with harness.channel() as channel:
        assert await reflect(channel).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_lists_the_services(harness: Harness) -> None:
    harness.reflection = True
    await harness.start()
    async with harness.channel(token=None) as channel:
        call = reflect(channel)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
        raw = await call.read()
        assert isinstance(raw, bytes)
        reply = reflection_pb2.ServerReflectionResponse.FromString(raw)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    listed = {service.name for service in reply.list_services_response.service}
    assert listed == {*SERVICES, HEALTH, REFLECTION}


async def test_drain_lets_requests_finish_and_takes_no_new_ones(running: Harness) -> None:
    running.tasks.pause()
    async with running.channel() as channel, running.channel(token=None) as other:
        watch = Watch(other)
        await watch.until(SERVING)
        call = send(channel)
        await running.tasks.until_waiting(1)
        draining = asyncio.create_task(running.drain())
        await watch.until(NOT_SERVING)
        await until_refused(channel)
        assert not draining.done()
        assert watch.is_open()
        begun = len(running.tasks.calls)
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE
        assert len(running.tasks.calls) == begun
        running.tasks.resume()
        assert await call
        await draining


async def until_refused(channel: grpc.aio.Channel) -> None:
    """Wait until the server takes no more calls; a call that it still takes ends by its deadline."""
    while (await refused(send(channel, timeout=0.2))).code is not grpc.StatusCode.UNAVAILABLE:
        pass


async def test_drain_ends_streams_that_would_never_end(harness: Harness) -> None:
    harness.reflection = True
    await harness.start()
    async with harness.channel(token=None) as channel:
        watch, reflected = Watch(channel), reflect(channel)
        await watch.until(SERVING)
        await reflected.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
        await reflected.read()
        async with asyncio.timeout(5):
            await harness.drain()
            assert await watch.end() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
                await reflected.read()


async def test_drain_cancels_what_takes_too_long(harness: Harness) -> None:
    harness.limits = harness.limits.model_copy(update={"drain_timeout": timedelta(seconds=0.2)})
    await harness.start()
    harness.tasks.pause()
    async with harness.channel() as channel:
        call = send(channel)
        await harness.tasks.until_waiting(1)
        await harness.drain()
        assert (await refused(call)).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert harness.tasks.cancelled == 1


async def test_drain_twice_and_before_start(harness: Harness) -> None:
    unstarted = harness.make()
    await unstarted.drain()
    await harness.start()
    await harness.drain()
    await harness.drain()


async def test_incomplete_access_table_keeps_the_ports_closed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*, reflection: bool) -> AccessTable:
        return {name: rule for name, rule in access_table(reflection=reflection).items() if "Lock" not in name}

    monkeypatch.setattr(server, "access_table", without_locks)
    with pytest.raises(RuntimeError, match="LockService/CreateLock"):
        await harness.start()
    assert harness.ports.bearer is None


async def test_service_left_out_keeps_the_ports_closed(harness: Harness) -> None:
    with pytest.raises(RuntimeError, match="AuditService/ListIssuances superfluous"):
        await harness.make(harness.services()[:-1]).start()


async def test_address_in_use(running: Harness) -> None:
    taken = f"127.0.0.1:{running.ports.bearer}"
    with pytest.raises(ConfigError, match=f"listen.bearer.address: cannot listen on {taken}"):
        await running.make(address=taken).start()


async def test_one_listener_is_enough(harness: Harness) -> None:
    only = harness.make(mutual=False)
    ports = await only.start()
    assert ports.bearer is not None
    assert ports.mutual is None
    await only.drain()


async def test_missing_authorities_keep_the_mutual_listener_closed(harness: Harness) -> None:
    harness.bundle = b""
    with pytest.raises(ConfigError, match="x509_svid"):
        await harness.start()
