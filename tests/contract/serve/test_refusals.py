"""How requests fail: one status, one event, and no more said than is meant to be."""

import asyncio

import grpc
import pytest
import structlog
from credbroker.v1 import task_service_pb2

from broker import errand
from broker.errors import BrokerError, FieldViolation, LimitReached, StoreUnavailable, VaultUnavailable
from broker.model import Outcome
from broker.serve import refusals
from broker.serve.context import current_call
from broker.serve.gate import RETRY_AFTER
from tests.contract.serve.harness import START, Harness, refused, send
from tests.fakes.identify import AGENT
from tests.fixtures.waiting import until

CANARY = "hvs.CAESICANARY"


async def test_refusal_of_a_workflow(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.error = LimitReached(
        f"{CANARY} and 3 are alive",
        message="at most 3 at once",
        metadata={"limit": "livePerTask"},
        violations=(FieldViolation("scope", "is full"),),
    )
    told = await refused(send(agent))
    assert (told.code, told.reason, told.domain) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMIT_REACHED",
        "credbroker.dev",
    )
    assert (told.message, told.metadata, told.violations) == ("at most 3 at once", {"limit": "livePerTask"}, ["scope"])
    assert CANARY.encode() not in told.raw
    (event,) = running.trail.events
    assert (event.type, event.outcome, event.actor) == ("request.refused", Outcome.DENIED, AGENT)
    assert event.detail == f"{CANARY} and 3 are alive"


async def test_facts_that_a_workflow_noted_are_in_the_event(running: Harness, agent: grpc.aio.Channel) -> None:
    identifier = "0190a6f2-7b1c-7def-8123-456789abcdef"
    request = task_service_pb2.GetTaskRequest(id=identifier).SerializeToString()
    told = await refused(send(agent, "credbroker.v1.TaskService/GetTask", request))
    assert told.reason == "TASK_NOT_FOUND"
    assert running.trail.events[0].task_id == identifier


async def test_technical_failures_are_recorded_as_such(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.error = VaultUnavailable("timed out after 5 s")
    assert (await refused(send(agent))).code is grpc.StatusCode.UNAVAILABLE
    (event,) = running.trail.events
    assert (event.type, event.outcome) == ("request.failed", Outcome.FAILURE)


class Hostile(Exception):
    """Spells out what it should not."""

    def __str__(self) -> str:
        return CANARY

    __repr__ = __str__


@pytest.mark.parametrize("error", [Hostile(), KeyError(CANARY), RuntimeError(CANARY), AssertionError(CANARY)])
async def test_unexpected_errors_say_nothing(running: Harness, agent: grpc.aio.Channel, error: Exception) -> None:
    running.tasks.error = error
    with structlog.testing.capture_logs() as logged:
        told = await refused(send(agent))
    assert (told.code, told.reason, told.message) == (grpc.StatusCode.INTERNAL, "INTERNAL", BrokerError.message)
    assert CANARY.encode() not in told.raw
    (event,) = running.trail.events
    assert (event.type, event.outcome, event.reason) == ("request.failed", Outcome.FAILURE, "INTERNAL")
    assert CANARY not in repr(event)
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert line["exc_info"] is error
    assert line["method"] == START


async def test_unexpected_errors_of_identification_say_nothing(running: Harness, agent: grpc.aio.Channel) -> None:
    running.identify.error = Hostile()
    told = await refused(send(agent))
    assert told.reason == "INTERNAL"
    assert CANARY.encode() not in told.raw
    assert [event.reason for event in running.trail.events] == ["INTERNAL"]


async def test_refusal_goes_out_even_when_it_cannot_be_recorded(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.error = LimitReached()
    running.trail.error = StoreUnavailable("disk full")
    with structlog.testing.capture_logs() as logged:
        assert (await refused(send(agent))).reason == "LIMIT_REACHED"
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert (line["reason"], line["actor"]) == ("LIMIT_REACHED", AGENT)


async def test_refusal_waits_for_its_event(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.error = LimitReached()
    running.trail.pause()
    call = send(agent)
    await running.trail.until_waiting()
    assert not call.done()
    running.trail.resume()
    assert (await refused(call)).reason == "LIMIT_REACHED"
    assert len(running.trail.events) == 1


async def test_refusal_does_not_wait_for_its_event_without_end(
    running: Harness, agent: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "RECORD_TIMEOUT", 0.1)
    running.tasks.error = LimitReached()
    running.trail.pause()
    with structlog.testing.capture_logs() as logged:
        assert (await refused(send(agent))).reason == "LIMIT_REACHED"
    assert "a refusal could not be recorded" in [line["event"] for line in logged]


async def test_refusal_is_recorded_once_though_the_caller_goes_away(
    running: Harness, agent: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def see_through(task: asyncio.Task[object]) -> None:
        gone.set()
        await errand.see_through(task)

    monkeypatch.setattr(refusals, "see_through", see_through)
    running.tasks.error = LimitReached()
    running.trail.pause()
    call = send(agent)
    await running.trail.until_waiting()
    call.cancel()
    await gone.wait()
    assert running.trail.events == []
    running.trail.resume()
    with structlog.testing.capture_logs() as logged:
        await running.until_idle()
    assert [line["code"] for line in logged if line["event"] == "request"] == ["CANCELLED"]
    assert [event.reason for event in running.trail.events] == ["LIMIT_REACHED"]


async def test_success_is_not_recorded_here(running: Harness, agent: grpc.aio.Channel) -> None:
    await send(agent)
    assert running.trail.events == []


async def test_cancellation_reaches_the_workflow_and_is_no_refusal(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.pause()
    call = send(agent)
    await running.tasks.until_waiting(1)
    with structlog.testing.capture_logs() as logged:
        call.cancel()
        await running.tasks.until_cancelled(1)
        await running.until_idle()
    assert running.trail.events == []
    assert [line["code"] for line in logged] == ["CANCELLED"]
    running.tasks.resume()
    await send(agent)


async def test_clients_deadline_cancels_the_workflow(running: Harness, agent: grpc.aio.Channel) -> None:
    running.tasks.pause()
    assert (await refused(send(agent, timeout=0.3))).code is grpc.StatusCode.DEADLINE_EXCEEDED
    await running.tasks.until_cancelled(1)


async def test_more_requests_than_allowed_are_turned_away_cheaply(harness: Harness) -> None:
    harness.limits = harness.limits.model_copy(update={"max_concurrent_requests": 3})
    await harness.start()
    harness.identify.gate.clear()
    async with harness.channel() as channel, harness.channel(token=None) as stranger:
        held = [send(channel) for _ in range(3)]
        await until(lambda: len(harness.identify.seen) == 3)
        with structlog.testing.capture_logs() as logged:
            answers = [await refused(send(stranger)) for _ in range(20)]
        assert {(told.code, told.reason, told.retry_after) for told in answers} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", RETRY_AFTER)
        }
        assert len(harness.identify.seen) == 3
        assert harness.trail.events == []
        assert [line["count"] for line in logged] == [1]
        harness.tick(1)
        with structlog.testing.capture_logs() as logged:
            await refused(send(channel))
        assert [line["count"] for line in logged] == [20]
        harness.identify.gate.set()
        assert {await call.code() for call in held} <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        await send(channel)


async def test_one_log_line_tells_how_a_request_went(running: Harness, agent: grpc.aio.Channel) -> None:
    with structlog.testing.capture_logs() as logged:
        await send(agent)
        running.tasks.error = LimitReached()
        await refused(send(agent))
    same = {"event": "request", "method": START, "agent": AGENT}
    assert [{key: line[key] for key in ("event", "method", "code", "reason", "agent")} for line in logged] == [
        {**same, "code": "OK", "reason": ""},
        {**same, "code": "RESOURCE_EXHAUSTED", "reason": "LIMIT_REACHED"},
    ]
    assert "agent-token" not in repr(logged)


async def test_concurrent_requests_have_a_call_each(running: Harness) -> None:
    running.scopes.pause()
    running.tasks.pause()
    async with running.channel("agent-token") as one, running.channel("admin-token") as other:
        calls = [send(one), send(other)]
        await running.tasks.until_waiting(2)
        running.tasks.resume()
        await asyncio.gather(*calls)
    assert len({id(call) for call in running.tasks.calls}) == 2
    assert {call.uri for call in running.tasks.calls} == {task.agent for task in running.tasks.tasks.values()}
    assert len({call.uri for call in running.tasks.calls}) == 2


def test_there_is_no_call_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError, match="no request"):
        current_call()
