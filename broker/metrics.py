"""What the broker measures: names, units and labels of its metrics, and the functions that feed them.

Labels take their values from closed sets of the broker's own: methods of the
contract, gRPC codes, reasons of the error tree, steps, causes. Nothing that a
caller can choose, and nobody's name, becomes one.

Several processes of one machine are measured together when
``PROMETHEUS_MULTIPROC_DIR`` names an empty directory in the environment of each
before this module is imported; see `broker.scrape`.
"""

import asyncio
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from types import MappingProxyType, TracebackType
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from broker.audit import Call
from broker.clock import Clock
from broker.errors import BrokerError
from broker.model import Revocation, Standing
from broker.serve.evidence import Metadata
from broker.serve.observing import Ended
from broker.step import Step

_Mode = Literal["max", "livemin", "livesum", "livemostrecent"]

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAG_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)

disable_created_metrics()  # type: ignore[no-untyped-call]  # published without its type
REGISTRY: Final = CollectorRegistry()


def _gauge(name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
    return Gauge(f"credbroker_{name}", text, labels, registry=REGISTRY, multiprocess_mode=mode)


_REQUESTS = Counter(
    "credbroker_requests", "Requests that were answered.", ("method", "code", "reason"), registry=REGISTRY
)
_REQUEST_TIME = Histogram(
    "credbroker_request_seconds",
    "From a request's arrival to its answer.",
    ("method",),
    registry=REGISTRY,
    buckets=_REQUEST_SECONDS,
)
_STEP_TIME = Histogram(
    "credbroker_step_seconds",
    "Duration of one wait of a workflow for the database or Vault.",
    ("step",),
    registry=REGISTRY,
    buckets=_STEP_SECONDS,
)
_STEP_FAILURES = Counter(
    "credbroker_step_failures", "Steps that raised an error.", ("step", "reason"), registry=REGISTRY
)
_REVOCATION_LAG = Histogram(
    "credbroker_revocation_lag_seconds",
    "From the request to revoke to Vault's confirmation.",
    ("cause",),
    registry=REGISTRY,
    buckets=_LAG_SECONDS,
)

_ACTIVE_TASKS = _gauge("active_tasks", "Tasks that have not ended.", "livemostrecent")
_UNCONFIRMED_TASKS = _gauge("unconfirmed_tasks", "Ended tasks with anything unconfirmed.", "livemostrecent")
_LIVE_ISSUANCES = _gauge("live_issuances", "Credentials minted, out or being revoked.", "livemostrecent")
_PENDING = _gauge("pending_revocations", "Revocations that Vault has not confirmed.", "livemostrecent")
_FAILING = _gauge("failing_revocations", "Pending revocations with a failed attempt.", "livemostrecent")
_IRREVOCABLE = _gauge("irrevocable_leases", "Leases that outlived six or more attempts.", "livemostrecent")
_OLDEST_PENDING = _gauge("oldest_pending_revocation_seconds", "Age of the longest pending one.", "livemostrecent")
_LOCKS = _gauge("locks_in_force", "Locks neither lifted nor expired.", "livemostrecent")
_COUNTED_AT = _gauge("standing_timestamp_seconds", "When the database was last counted, Unix time.", "livemostrecent")

_READY = _gauge("ready", "1 while everything the broker needs answers.", "livemin")
_REQUESTS_INSIDE = _gauge("requests_in_progress", "Requests let in and not answered.", "livesum")
_REQUESTS_WAITING = _gauge("requests_waiting", "Requests admitted that wait for their turn.", "livesum", "lane")
_WRITES_WAITING = _gauge("store_writes_waiting", "Writes that wait for a transaction.", "livesum")
_READS = _gauge("store_reads_in_progress", "Reads that run or wait for a thread.", "livesum")
_TOKEN_LEFT = _gauge("vault_token_seconds", "Life left of the broker's Vault token; +Inf without end.", "livemin")
_CLOCK_AHEAD = _gauge("clock_ahead_seconds", "The broker's time less Vault's; NaN if unknown.", "livemostrecent")
_LEASE_HELD = _gauge("lease_held", "1 where this replica does the work that only one may do.", "livesum", "work")
_BUILD = _gauge("build_info", "Always 1.", "max", "version", "python")


@dataclass(frozen=True, slots=True)
class Reading:
    """How one process stands at a moment.

    Attributes:
        ready: Whether everything it needs answers.
        requests: Requests inside.
        requests_waiting: Those of them that wait for their turn, by lane.
        writes_waiting: Writes that wait for a transaction.
        reads: Reads that run or wait for a thread.
        vault_token_left: Seconds that its Vault token lives on; 0 without one,
            infinity for one without end.
        clock_difference: How far its clock is ahead of Vault's; None if unknown.
        leases: By name of the work, whether this process holds its lease.
    """

    ready: bool
    requests: int
    requests_waiting: Mapping[str, int]
    writes_waiting: int
    reads: int
    vault_token_left: float
    clock_difference: timedelta | None
    leases: Mapping[str, bool]


CAUSES: Final = MappingProxyType(
    {
        "task": "task",
        "lock": "lock",
        "expired": "expiry",
        "agent": "agent",
        "revocation": "admin",
        "anchor": "cleanup",
        "caller": "cleanup",
        "mint": "cleanup",
        "record": "cleanup",
        "vault": "cleanup",
        "undelivered": "cleanup",
    }
)
"""Causes of revocations, by the first word of their recorded reason."""


def set_build(version: str) -> None:
    """Say which software runs."""
    _BUILD.labels(version, platform.python_version()).set(1)


def set_reading(reading: Reading) -> None:
    """Say how this process stands."""
    _READY.set(reading.ready)
    _REQUESTS_INSIDE.set(reading.requests)
    for lane, waiting in reading.requests_waiting.items():
        _REQUESTS_WAITING.labels(lane).set(waiting)
    _WRITES_WAITING.set(reading.writes_waiting)
    _READS.set(reading.reads)
    _TOKEN_LEFT.set(reading.vault_token_left)
    _CLOCK_AHEAD.set(math.nan if reading.clock_difference is None else reading.clock_difference.total_seconds())
    for work, held in reading.leases.items():
        _LEASE_HELD.labels(work).set(held)


def set_standing(standing: Standing, now: datetime) -> None:
    """Say what the database counted at `now`."""
    _ACTIVE_TASKS.set(standing.active_tasks)
    _UNCONFIRMED_TASKS.set(standing.unconfirmed_tasks)
    _LIVE_ISSUANCES.set(standing.live_issuances)
    _PENDING.set(standing.pending_revocations)
    _FAILING.set(standing.failing_revocations)
    _IRREVOCABLE.set(standing.irrevocable_leases)
    _OLDEST_PENDING.set(_seconds(now - (standing.oldest_pending_at or now)))
    _LOCKS.set(standing.locks_in_force)
    _COUNTED_AT.set(now.timestamp())


def revocation_confirmed(revocation: Revocation, now: datetime) -> None:
    """Measure how long a revocation took; to be called once its confirmation is durable."""
    _REVOCATION_LAG.labels(cause_of(revocation.reason)).observe(_seconds(now - revocation.requested_at))


def cause_of(reason: str) -> str:
    """Return the cause under which a recorded reason of a revocation is measured."""
    word = re.match("[a-z]*", reason)
    if reason == "task.locked":
        return "lock"
    return CAUSES.get(word[0], "other") if word else "other"


def observe_request(call: Call, _metadata: Metadata) -> Callable[[Ended], None]:
    """Measure a request; an observer of `broker.serve`."""

    def end(ended: Ended) -> None:
        count, times = _of_requests(call.method, ended.code, ended.reason)
        count.inc()
        times.observe(ended.seconds)

    return end


@cache
def _of_requests(method: str, code: str, reason: str) -> tuple[Counter, Histogram]:
    return _REQUESTS.labels(method, code, reason), _REQUEST_TIME.labels(method)


def step_observer(clock: Clock) -> Callable[[Step], AbstractContextManager[object]]:
    """Return an observer of `broker.step` that measures every step."""
    times = {step: _STEP_TIME.labels(step.value) for step in Step}
    return lambda step: _Timing(step, times[step], clock)


class _Timing:
    __slots__ = ("_clock", "_started", "_step", "_times")

    def __init__(self, step: Step, times: Histogram, clock: Clock) -> None:
        self._step = step
        self._times = times
        self._clock = clock
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = self._clock.monotonic()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        self._times.observe(self._clock.monotonic() - self._started)
        if error is not None:
            _STEP_FAILURES.labels(self._step.value, _reason(error)).inc()


def _reason(error: BaseException) -> str:
    match error:
        case BrokerError():
            return error.reason
        case asyncio.CancelledError():
            return "CANCELLED"
        case _:
            return "OTHER"


def _seconds(span: timedelta) -> float:
    # Two replicas' clocks may differ by more than the span.
    return max(0.0, span.total_seconds())


def render() -> bytes:
    """Return the metrics of this process, in Prometheus' text format."""
    return generate_latest(REGISTRY)


if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    ProcessCollector(registry=REGISTRY)
