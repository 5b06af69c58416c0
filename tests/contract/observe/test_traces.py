"""Traces: what becomes a span, whose trace it belongs to, and what a receiver can do to the broker."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from broker import config
from broker.audit import Call
from broker.errors import VaultUnavailable
from broker.serve.observing import Ended
from broker.step import Step, observe, step
from broker.traceparent import traceparent
from broker.traces import EXPORT_SECONDS, Tracing
from tests.fakes.collector import Collector
from tests.fixtures.records import NOW
from tests.fixtures.waiting import until

METHOD = "credbroker.v1.TaskService/StartTask"
OK = Ended("OK", "", 0.1)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def a_call() -> Call:
    return Call(METHOD, "127.0.0.1:1", NOW, agent="agent-canary", scope="scope-canary")


def tracing_to(endpoint: str, sample_ratio: float = 1.0) -> Tracing:
    return Tracing(config.Traces(endpoint=endpoint, sample_ratio=sample_ratio), "1.2.3", "replica-1")


@pytest.fixture
async def tracing(collector: Collector) -> AsyncIterator[Tracing]:
    running = tracing_to(collector.endpoint)
    end = observe(running.observe_step)
    yield running
    end()
    await running.stop()


async def test_a_request_is_a_span_and_its_steps_are_its_children(tracing: Tracing, collector: Collector) -> None:
    async def ask_vault() -> str:
        return traceparent.get()

    async def mint() -> str:
        assert traceparent.get() == ""
        return await step(Step.VAULT_CALL, ask_vault())

    call = a_call()
    end = tracing.observe_request(call, ())
    header = await step(Step.ISSUE_MINT, mint())
    call.task_id, call.issuance_id = "task-1", "issuance-1"
    end(Ended("PERMISSION_DENIED", "LOCKED", 0.1))
    assert traceparent.get() == ""
    await tracing.stop()

    (request,), (minting,), (vault,) = (collector.named(name) for name in (METHOD, "issue.mint", "vault.call"))
    assert request.kind == Proto.SPAN_KIND_SERVER
    assert request.parent == ""
    assert request.status == Status.STATUS_CODE_UNSET
    assert request.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "credbroker.v1.TaskService",
        "rpc.method": "StartTask",
        "rpc.grpc.status_code": 7,
        "credbroker.reason": "LOCKED",
        "credbroker.task_id": "task-1",
        "credbroker.issuance_id": "issuance-1",
    }
    assert b"canary" not in collector.raw
    assert minting.parent == request.id
    assert (vault.parent, vault.kind) == (minting.id, Proto.SPAN_KIND_CLIENT)
    assert header == f"00-{request.trace_id}-{vault.id}-01"
    assert {span.trace_id for span in (request, minting, vault)} == {request.trace_id}
    assert collector.resource["service.name"] == "credbroker"
    assert collector.resource["service.instance.id"] == "replica-1"


async def test_what_fails_is_marked_without_its_text(tracing: Tracing, collector: Collector) -> None:
    async def fail(error: Exception) -> None:
        raise error

    end = tracing.observe_request(a_call(), ())
    with pytest.raises(VaultUnavailable):
        await step(Step.ISSUE_MINT, fail(VaultUnavailable("canary")))
    with pytest.raises(ValueError, match="canary"):
        await step(Step.ISSUE_LOOK_UP, fail(ValueError("canary")))
    end(Ended("UNAVAILABLE", "VAULT_UNAVAILABLE", 0.1))
    await tracing.stop()

    failed = {span.name: span.status_text for span in collector.spans if span.status == Status.STATUS_CODE_ERROR}
    assert failed == {
        METHOD: "VAULT_UNAVAILABLE",
        "issue.mint": "VAULT_UNAVAILABLE",
        "issue.look_up": "ValueError",
    }
    assert b"canary" not in collector.raw


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
async def test_a_callers_trace_is_continued(tracing: Tracing, collector: Collector, flags: str) -> None:
    tracing.observe_request(a_call(), [("traceparent", f"00-{TRACE}-{PARENT}-{flags}"), ("tracestate", "x=canary")])(OK)
    await tracing.stop()
    assert [(span.trace_id, span.parent) for span in collector.spans] == [(TRACE, PARENT)]
    assert b"canary" not in collector.raw


@pytest.mark.parametrize(
    "metadata",
    [
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"00-{TRACE.upper()}-{PARENT}-01")],
        [("traceparent", f"01-{TRACE}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01-canary")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01\n")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01".encode())],
        [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("traceparent", f"00-{TRACE}-{PARENT}-01")],
        [("traceparent", "")],
    ],
)
async def test_what_is_no_traceparent_is_passed_over(
    tracing: Tracing, collector: Collector, metadata: list[tuple[str, str | bytes]]
) -> None:
    tracing.observe_request(a_call(), metadata)(OK)
    await tracing.stop()
    (span,) = collector.spans
    assert span.trace_id != TRACE
    assert span.parent == ""


async def test_what_is_left_out_by_the_ratio_goes_nowhere(collector: Collector) -> None:
    tracing = tracing_to(collector.endpoint, sample_ratio=0.0)
    end = observe(tracing.observe_step)

    async def ask() -> str:
        return traceparent.get()

    try:
        finish = tracing.observe_request(a_call(), [("traceparent", f"00-{TRACE}-{PARENT}-01")])
        assert await step(Step.VAULT_CALL, ask()) == ""
        finish(OK)
    finally:
        end()
        await tracing.stop()
    assert collector.spans == []


async def test_steps_outside_of_requests_are_no_spans(tracing: Tracing, collector: Collector) -> None:
    await step(Step.OUTBOX_CLAIM, asyncio.sleep(0))
    await tracing.stop()
    assert collector.spans == []


async def test_a_receiver_that_fails_is_said_once_and_holds_nothing_up(
    collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    collector.status = 400
    tracing = tracing_to(collector.endpoint)
    tracing.observe_request(a_call(), ())(OK)
    await until(lambda: collector.requests == 1)
    tracing.observe_request(a_call(), ())(OK)
    await until(lambda: collector.requests == 2)
    tracing.observe_request(a_call(), ())(OK)
    started = asyncio.get_running_loop().time()
    await tracing.stop()

    assert asyncio.get_running_loop().time() - started < 2
    assert collector.requests == 2
    said = "".join(capfd.readouterr())
    assert said.count("traces cannot be delivered") == 1
    assert "collector's own words" not in said


async def test_a_receiver_that_hangs_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as never_accepting:
        tracing = tracing_to(f"http://127.0.0.1:{never_accepting.getsockname()[1]}/v1/traces")
        tracing.observe_request(a_call(), ())(OK)
        async with asyncio.timeout(2 * EXPORT_SECONDS + 1):
            await tracing.stop()
