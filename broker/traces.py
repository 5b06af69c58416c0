"""Traces for OpenTelemetry: a span per request, one per step in it, and on to Vault.

Spans say which call, which step, how it ended, and the broker's own identifiers
of task and issuance; nothing of evidence, parameters or credentials, and no
texts of errors. A caller's ``traceparent`` is taken for what it is, something
a stranger wrote: it says which trace and span to continue, and nothing else.

Source: https://www.w3.org/TR/trace-context/, section 3.2.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from broker import config
from broker.audit import Call
from broker.errors import BrokerError
from broker.serve.evidence import Metadata
from broker.serve.observing import Ended
from broker.step import Step
from broker.traceparent import traceparent

MAX_WAITING: Final = 2048
EXPORT_SECONDS: Final = 2.0
"""How long one export may take; ending waits for two at most."""

_BATCH = 512
_DELAY_MS = 1000
_SERVERS_FAULT = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")

_span: ContextVar[Span | None] = ContextVar("credbroker_span", default=None)

log = structlog.get_logger(__name__)


class Tracing:
    """Makes spans of requests and steps, and sends them away in the background.

    What waits to be sent is bounded; what does not fit is dropped. A receiver
    that is away is said once in the log, and holds nothing up.

    Args:
        settings: Where traces go.
        version: Of this software.
        replica: Name of this replica.
    """

    def __init__(self, settings: config.Traces, version: str, replica: str) -> None:
        # Their records repeat themselves, and hold texts of whoever answered.
        libraries = logging.getLogger("opentelemetry")
        libraries.handlers[:] = [logging.NullHandler()]
        libraries.propagate = False
        self._exporter = _Exporter(
            OTLPSpanExporter(
                endpoint=settings.endpoint,
                certificate_file=str(settings.ca_file) if settings.ca_file else None,
                timeout=EXPORT_SECONDS,
                compression=Compression.Gzip,
            )
        )
        resource = {"service.name": "credbroker", "service.version": version, "service.instance.id": replica}
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(settings.sample_ratio),
            resource=Resource.create(resource),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=MAX_WAITING,
                schedule_delay_millis=_DELAY_MS,
                max_export_batch_size=_BATCH,
            )
        )
        self._tracer = self._provider.get_tracer("credbroker", version)

    def observe_request(self, call: Call, metadata: Metadata) -> Callable[[Ended], None]:
        """Begin the span of a request; an observer of `broker.serve`."""
        service, _, method = call.method.rpartition("/")
        span = self._tracer.start_span(
            call.method,
            _continued(metadata),
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        outer = _span.set(span)
        bound = structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(span.get_span_context().trace_id))

        def end(ended: Ended) -> None:
            structlog.contextvars.reset_contextvars(**bound)
            _span.reset(outer)
            _describe(span, call, ended)
            span.end()

        return end

    def observe_step(self, step: Step) -> AbstractContextManager[object]:
        """Begin the span of a step that belongs to a request; an observer of `broker.step`."""
        parent = _span.get()
        if parent is None or not parent.get_span_context().trace_flags.sampled:
            return nullcontext()
        return _StepSpan(self._tracer, parent, step)

    async def stop(self) -> None:
        """Send what waits, if the receiver answers, and end."""
        self._exporter.ending = True
        await asyncio.to_thread(self._provider.shutdown)


class _StepSpan:
    __slots__ = ("_outer", "_outer_header", "_parent", "_span", "_step", "_tracer")

    _outer: Token[Span | None]
    _outer_header: Token[str] | None
    _span: Span

    def __init__(self, tracer: trace.Tracer, parent: Span, step: Step) -> None:
        self._tracer = tracer
        self._parent = parent
        self._step = step
        self._outer_header = None

    def __enter__(self) -> None:
        calls = self._step is Step.VAULT_CALL
        kind = SpanKind.CLIENT if calls else SpanKind.INTERNAL
        self._span = self._tracer.start_span(self._step.value, trace.set_span_in_context(self._parent, Context()), kind)
        self._outer = _span.set(self._span)
        if calls:
            self._outer_header = traceparent.set(_header(self._span.get_span_context()))

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        _span.reset(self._outer)
        if self._outer_header is not None:
            traceparent.reset(self._outer_header)
        if error is not None:
            reason = error.reason if isinstance(error, BrokerError) else type(error).__name__
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()


class _Exporter(SpanExporter):
    """Says in the log when exporting begins to fail and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.ending = False
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.ending and self._failing:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("traces cannot be delivered, they are dropped")
        elif self._failing and not failing:
            log.info("traces are delivered again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _continued(metadata: Metadata) -> Context:
    """Return the context in which the span of a request begins: that of its caller's, if it named one."""
    headers = [value for key, value in metadata if key == "traceparent"]
    match = _TRACEPARENT.fullmatch(headers[0]) if len(headers) == 1 and isinstance(headers[0], str) else None
    if match is None:
        return Context()
    caller = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags.get_default())
    return trace.set_span_in_context(NonRecordingSpan(caller), Context())


def _describe(span: Span, call: Call, ended: Ended) -> None:
    span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[ended.code].value[0])
    for name, value in (
        ("credbroker.reason", ended.reason),
        ("credbroker.task_id", call.task_id),
        ("credbroker.issuance_id", call.issuance_id),
    ):
        if value:
            span.set_attribute(name, value)
    if ended.code in _SERVERS_FAULT:
        span.set_status(StatusCode.ERROR, ended.reason)


def _header(span: SpanContext) -> str:
    return f"00-{trace.format_trace_id(span.trace_id)}-{trace.format_span_id(span.span_id)}-01"
