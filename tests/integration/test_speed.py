"""Issuing does not become slow: ratios within one short run, on the real servers.

The bounds leave room for a busy machine and for other tests beside: they find
what has become half as fast, not a tenth. `make bench` measures properly.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import stack
from tests.bench.load import load
from tests.bench.stack import Bench

CALLERS = 16
SECONDS, ROUNDS = 1.0, 3
BOTH, BROKER = ("broker", "direct"), ("broker",)

LEAST_STEADY = 0.5
LEAST_TASKS_OF_TEN = 0.9
MOST_HEALTH_CHECKS = 12
MOST_LOGINS = 1.5


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    # PostgreSQL's user passes through the folder.
    with tempfile.TemporaryDirectory(prefix="credbroker-speed-") as folder:
        Path(folder).chmod(0o755)
        with stack.running(Path(folder)) as parts, parts.broker("sqlite", quick=True, compare=False) as running:
            yield running


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_issuing_keeps_up_with_logins_and_costs_few_calls(bench: Bench) -> None:
    async with load(bench, CALLERS) as callers:
        await callers.warm_up("steady", CALLERS, SECONDS, BOTH)
        steady = await callers.spans("steady", CALLERS, SECONDS, rounds=ROUNDS, sides=BOTH)
        checks = await callers.spans("health checks", CALLERS, SECONDS, rounds=ROUNDS, sides=BROKER)
        await callers.warm_up("tasks of ten", CALLERS, SECONDS, BOTH)
        tasks = await callers.spans("tasks of ten", CALLERS, SECONDS, rounds=ROUNDS, sides=BOTH)

    broker, direct = steady["broker"], steady["direct"]
    seen = {
        "steady against logins": broker.rate / direct.rate,
        "tasks of ten against logins": tasks["broker"].rate / tasks["direct"].rate,
        "processor time in health checks": broker.cpu["broker"] / checks["broker"].cpu["broker"],
        "processor time in logins": broker.cpu["broker"] / direct.cpu["OpenBao"],
    }
    assert seen["steady against logins"] >= LEAST_STEADY, seen
    assert seen["tasks of ten against logins"] >= LEAST_TASKS_OF_TEN, seen
    assert seen["processor time in health checks"] <= MOST_HEALTH_CHECKS, seen
    assert seen["processor time in logins"] <= MOST_LOGINS, seen
