"""What is measured: under which names, with which labels, and together over processes."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker import metrics
from broker.audit import Call
from broker.errors import VaultUnavailable
from broker.metrics import Reading, cause_of
from broker.model import Standing
from broker.scrape import MULTIPROCESS, forget_process, serve_metrics
from broker.serve.observing import Ended
from broker.step import Step, observe, step
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import NOW, a_revocation, a_task
from tests.fixtures.scraping import labelled, samples, scrape

SECOND = timedelta(seconds=1)
METHOD = "credbroker.v1.TaskService/StartTask"


def now_measured() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return samples(metrics.render().decode())


def grown(before: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    key = (name, labelled(**labels))
    return now_measured()[key] - before.get(key, 0.0)


async def test_a_step_is_timed_and_its_failure_counted_by_reason(clock: FakeClock) -> None:
    async def fail() -> None:
        clock.advance(2)
        raise VaultUnavailable("gone")

    async def work() -> int:
        clock.advance(0.02)
        return 7

    before = now_measured()
    end = observe(metrics.step_observer(clock))
    try:
        assert await step(Step.ISSUE_MINT, work()) == 7
        with pytest.raises(VaultUnavailable):
            await step(Step.ISSUE_MINT, fail())
    finally:
        end()

    assert grown(before, "credbroker_step_seconds_count", step="issue.mint") == 2
    assert grown(before, "credbroker_step_seconds_bucket", step="issue.mint", le="0.025") == 1
    assert grown(before, "credbroker_step_seconds_sum", step="issue.mint") == pytest.approx(2.02)
    assert grown(before, "credbroker_step_failures_total", step="issue.mint", reason="VAULT_UNAVAILABLE") == 1


def test_a_request_is_counted_by_method_code_and_reason_and_by_nothing_of_the_callers() -> None:
    call = Call(METHOD, "127.0.0.1:1", NOW, agent="agent-canary", scope="scope-canary", task_id="task-canary")
    before = now_measured()

    metrics.observe_request(call, [("x", "metadata-canary")])(Ended("PERMISSION_DENIED", "LOCKED", 0.2))

    labels = {"method": METHOD, "code": "PERMISSION_DENIED", "reason": "LOCKED"}
    assert grown(before, "credbroker_requests_total", **labels) == 1
    assert grown(before, "credbroker_request_seconds_count", method=METHOD) == 1
    assert "canary" not in metrics.render().decode()


def test_the_lag_of_a_revocation_is_measured_by_cause() -> None:
    before = now_measured()
    entry = a_revocation(a_task(), reason="task.completed", requested_at=NOW - 3 * SECOND)

    metrics.revocation_confirmed(entry, NOW)
    metrics.revocation_confirmed(entry, NOW - 5 * SECOND)

    assert grown(before, "credbroker_revocation_lag_seconds_count", cause="task") == 2
    assert grown(before, "credbroker_revocation_lag_seconds_sum", cause="task") == 3


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("task.deadline_exceeded", "task"),
        ("task.locked", "lock"),
        ("lock 0190f5b4", "lock"),
        ("expired", "expiry"),
        ("agent.revoked", "agent"),
        ("revocation 0190f5b4", "admin"),
        ("mint.interrupted", "cleanup"),
        ("mint_failed", "cleanup"),
        ("anchor.abandoned", "cleanup"),
        ("record.failed", "cleanup"),
        ("vault.lost", "cleanup"),
        ("undelivered", "cleanup"),
        ("", "other"),
        ("whatever a caller wrote", "other"),
    ],
)
def test_causes_are_a_closed_set(reason: str, cause: str) -> None:
    assert cause_of(reason) == cause


def test_gauges_say_how_things_stand() -> None:
    standing = Standing(1, 2, 3, 4, 5, 6, NOW - 90 * SECOND, 7)

    metrics.set_standing(standing, NOW)
    metrics.set_reading(Reading(True, 8, {"serve": 5}, 9, 10, float("inf"), -2 * SECOND, {"sweep": True}))

    found = now_measured()
    named = {name: value for (name, labels), value in found.items() if not labels}
    assert named["credbroker_active_tasks"] == 1
    assert named["credbroker_unconfirmed_tasks"] == 2
    assert named["credbroker_live_issuances"] == 3
    assert named["credbroker_pending_revocations"] == 4
    assert named["credbroker_failing_revocations"] == 5
    assert named["credbroker_irrevocable_leases"] == 6
    assert named["credbroker_oldest_pending_revocation_seconds"] == 90
    assert named["credbroker_locks_in_force"] == 7
    assert named["credbroker_ready"] == 1
    assert named["credbroker_requests_in_progress"] == 8
    assert named["credbroker_store_writes_waiting"] == 9
    assert named["credbroker_store_reads_in_progress"] == 10
    assert named["credbroker_vault_token_seconds"] == float("inf")
    assert named["credbroker_clock_ahead_seconds"] == -2
    assert found["credbroker_requests_waiting", labelled(lane="serve")] == 5
    assert found["credbroker_lease_held", labelled(work="sweep")] == 1

    metrics.set_standing(Standing(0, 0, 0, 0, 0, 0, None, 0), datetime.now(UTC))
    assert now_measured()["credbroker_oldest_pending_revocation_seconds", labelled()] == 0


WORKER = """
import sys
from datetime import UTC, datetime
from broker import metrics
from broker.audit import Call
from broker.model import Standing
from broker.serve.observing import Ended
metrics.set_build("1.2.3")
metrics.observe_request(Call("credbroker.v1.TaskService/StartTask", "", datetime.now(UTC)), ())(Ended("OK", "", 0.1))
metrics.set_reading(metrics.Reading(sys.argv[1] == "ready", 3, {}, 0, 0, 60.0, None, {"sweep": sys.argv[1] == "ready"}))
metrics.set_standing(Standing(5, 0, 0, 0, 0, 0, None, 0), datetime.now(UTC))
print("measured", flush=True)
sys.stdin.read()
"""


@contextmanager
def measuring(state: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that measures a little and then waits for its end."""
    command = [sys.executable, "-c", WORKER, state]
    environment = {**os.environ, MULTIPROCESS: str(folder)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"measured\n"
        yield process


async def test_several_processes_are_measured_as_one(tmp_path: Path) -> None:
    with measuring("ready", tmp_path), measuring("starting", tmp_path) as second:
        async with serve_metrics("127.0.0.1:0", tmp_path) as address:
            together = await scrape(address)
            second.communicate()
            forget_process(second.pid, tmp_path)
            left = await scrape(address)

    requests = ("credbroker_requests_total", labelled(method=METHOD, code="OK", reason=""))
    assert together[requests] == left[requests] == 2
    assert together["credbroker_ready", labelled()] == 0
    assert left["credbroker_ready", labelled()] == 1
    assert together["credbroker_requests_in_progress", labelled()] == 6
    assert left["credbroker_requests_in_progress", labelled()] == 3
    assert math.isnan(together["credbroker_clock_ahead_seconds", labelled()])
    assert together["credbroker_active_tasks", labelled()] == 5
    assert together["credbroker_lease_held", labelled(work="sweep")] == 1
