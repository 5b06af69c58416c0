"""Turns between callers: a flood of one delays nobody else, and taking back waits for nothing but itself."""

import asyncio
from collections import Counter
from datetime import timedelta

import grpc
import pytest
import structlog
from credbroker.v1 import lock_pb2, lock_service_pb2, task_service_pb2

from broker import config
from broker.ids import new_id
from broker.serve import options
from tests.contract.serve.harness import START, Harness, RawCall, refused, send
from tests.fakes.identify import AGENT
from tests.fixtures.waiting import until

OTHER = "spiffe://example.test/other"
COMPLETE = "credbroker.v1.TaskService/CompleteTask"
LOCK = "credbroker.v1.LockService/CreateLock"
FLOOD = 200


@pytest.fixture(autouse=True)
def many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one connection carry a whole flood."""
    monkeypatch.setattr(options, "MAX_STREAMS_PER_CONNECTION", 1000)


def small(harness: Harness, **limits: int) -> config.Limits:
    return harness.limits.model_copy(update={"max_running": 4, "max_waiting_per_identity": 400, **limits})


async def flood(channel: grpc.aio.Channel, harness: Harness, running: int, count: int = FLOOD) -> list[RawCall]:
    """Send many requests at once while none ends, and return when as many run as may."""
    harness.tasks.pause()
    calls = [send(channel) for _ in range(count)]
    await harness.tasks.until_waiting(running)
    return calls


async def test_a_flood_of_one_agent_delays_another_by_its_turns_alone(harness: Harness) -> None:
    harness.limits = small(harness, max_concurrent_requests=2000)
    await harness.start()
    async with harness.channel() as channel, harness.mutual_channel(OTHER) as other:
        flooding = await flood(channel, harness, running=4)
        await until(lambda: len(harness.identify.seen) == FLOOD)
        quiet = [send(other) for _ in range(5)]
        await until(lambda: len(harness.identify.seen) == FLOOD + 5)
        harness.tasks.resume()
        await asyncio.gather(*quiet, *flooding)
    served = [call.uri for call in harness.tasks.calls]
    assert Counter(served) == {AGENT: FLOOD, OTHER: 5}
    # Four ran already; from then on the two take turns.
    assert max(place for place, uri in enumerate(served) if uri == OTHER) <= 4 + 2 * 5


async def test_more_than_may_wait_are_turned_away_without_an_event(harness: Harness) -> None:
    harness.limits = small(harness, max_waiting_per_identity=10)
    await harness.start()
    async with harness.channel() as channel, harness.mutual_channel(OTHER) as other:
        with structlog.testing.capture_logs() as logged:
            flooding = await flood(channel, harness, running=4, count=100)
            await until(lambda: sum(call.done() for call in flooding) == 86)
        turned_away = [await refused(call) for call in flooding if call.done()]
        assert {(told.code, told.reason) for told in turned_away} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        }
        assert all(told.retry_after for told in turned_away)
        assert harness.trail.events == []
        assert len(logged) == 1
        quiet = send(other)
        harness.tasks.resume()
        await quiet
        assert sum([await call.code() is grpc.StatusCode.OK for call in flooding]) == 14


async def test_taking_back_passes_everything_that_gives_out(harness: Harness) -> None:
    harness.limits = small(harness)
    await harness.start()
    task = task_service_pb2.CompleteTaskRequest(id=new_id()).SerializeToString()
    lock = lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(agent=AGENT), reason="a test")
    async with harness.channel() as channel, harness.channel("admin-token") as admin:
        flooding = await flood(channel, harness, running=4, count=50)
        completing = [send(channel, COMPLETE, task) for _ in range(3)]
        await harness.tasks.until_waiting(5)  # one of the three runs, beside the four
        await send(admin, LOCK, lock.SerializeToString())
        harness.tasks.resume()
        await asyncio.gather(*flooding)
        await asyncio.wait([asyncio.ensure_future(call.code()) for call in completing])


async def test_a_request_that_waits_beyond_its_deadline_frees_its_place(harness: Harness) -> None:
    harness.limits = small(harness, max_running=1, max_waiting_per_identity=1)
    await harness.start()
    async with harness.channel() as channel:
        running = await flood(channel, harness, running=1, count=1)
        # Whose clock is first, the client's or the broker's, is not for the broker to say.
        late = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert (await refused(send(channel, timeout=0.2))).code in late
        waiting = send(channel)
        await until(lambda: len(harness.identify.seen) == 3)
        harness.tasks.resume()
        await asyncio.gather(waiting, *running)
    assert len(harness.tasks.calls) == 2
    assert harness.trail.events == []


async def test_a_request_without_a_deadline_is_given_one(harness: Harness) -> None:
    harness.limits = small(harness, max_running=1).model_copy(update={"max_request_time": timedelta(seconds=0.2)})
    await harness.start()
    async with harness.channel() as channel:
        running = await flood(channel, harness, running=1, count=1)
        told = await refused(send(channel, START))
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        harness.tasks.resume()
        await asyncio.gather(*running)


async def test_a_message_that_does_not_come_holds_no_place(harness: Harness) -> None:
    harness.limits = small(harness, max_running=1, max_waiting_per_identity=2)
    await harness.start()
    async with harness.channel() as channel:
        silent: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{START}")
        call = silent()
        await until(lambda: len(harness.identify.seen) == 1)
        await send(channel)
        call.cancel()
