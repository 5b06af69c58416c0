"""Credentials through the broker, against a login to Vault with the same token: in turns, within one run.

What a login gives is compared with what the broker gives, to the same end: a
token of Vault's that can be taken back. Where a task of the broker's ends, the
direct side revokes each token that it got.

=============  ============================  ======================================
workload       broker                        directly
=============  ============================  ======================================
steady         one long task; issue          log in
tasks of ten   issue ten, complete           log in ten times, revoke each
tasks of one   issue, complete               log in, revoke
=============  ============================  ======================================
"""

from collections.abc import Sequence
from typing import Final

from tests.bench import machine, processes
from tests.bench.agents import WORKLOADS, callers
from tests.bench.figures import Figure, Span, against
from tests.bench.load import load
from tests.bench.stack import Bench

__all__ = ["RATIO", "WORKLOADS", "callers", "run"]

RATIO: Final = "steady, 32 callers: credentials a second against logins"
FLUSH: Final = "fdatasync of 4 KiB beside the database, median"
CALLERS: Final = (1, 16, 32, 64)
QUICK_CALLERS: Final = (1, 4)
JUDGED: Final = 32
AT_LEAST: Final = {"steady": 2.0, "tasks of ten": 2.0, "tasks of one": 0.9}
GOAL_ALONE, GOAL_CPU_MS = 0.5, 0.5
SECONDS, QUICK_SECONDS, WARM_UP_SECONDS = 1.5, 0.3, 1.0
ROUNDS, JUDGED_ROUNDS = 2, 6
SIDES: Final = ("broker", "direct")


async def run(bench: Bench) -> list[Figure]:
    """Measure each workload with each number of callers."""
    numbers = QUICK_CALLERS if bench.quick else CALLERS
    seconds, warm_up = (QUICK_SECONDS, QUICK_SECONDS) if bench.quick else (SECONDS, WARM_UP_SECONDS)
    figures: list[Figure] = []
    async with load(bench, max(numbers)) as callers_at_work:
        for workload in AT_LEAST:
            await callers_at_work.warm_up(workload, max(numbers), warm_up, SIDES)
            for number in numbers:
                rounds = rounds_of(workload, number, quick=bench.quick)
                spans = await callers_at_work.spans(workload, number, seconds, rounds=rounds, sides=SIDES)
                bench.spans.extend(spans.values())
                figures += _figures(spans["broker"], spans["direct"])
    flush = Figure(FLUSH, machine.flush_seconds(bench.folder) * 1000, "ms")
    return [*figures, *memory(bench), flush]


def rounds_of(workload: str, callers: int, *, quick: bool) -> int:
    """Return how often the sides take turns: more often where a goal is judged, since a machine's speed varies."""
    if quick:
        return 1
    return JUDGED_ROUNDS if callers == JUDGED or (workload == "steady" and callers == 1) else ROUNDS


def _figures(broker: Span, direct: Span) -> list[Figure]:
    workload, number = broker.workload, broker.callers
    at_least = AT_LEAST[workload] if number == JUDGED else None
    name = f"{workload}, {number} callers: credentials a second against logins"
    figures = against(name, broker, direct, at_least=at_least)
    if workload == "steady" and number == 1:
        figures.append(
            Figure("steady, alone: p50 against a login's", broker.waits[0] / direct.waits[0], "x", GOAL_ALONE)
        )
    if workload == "steady" and number == JUDGED:
        name = f"steady, {number} callers: the broker's processor time for one credential"
        figures.append(Figure(name, broker.cpu["broker"], "ms", GOAL_CPU_MS))
    return figures


def memory(bench: Bench) -> Sequence[Figure]:
    """Return what each of the broker's processes holds."""
    held = processes.memory(bench.broker.pid)
    names = ["the broker"] if len(held) == 1 else ["the supervisor", *(f"worker {n + 1}" for n in range(len(held) - 1))]
    return [
        figure
        for name, one in zip(names, held, strict=True)
        for figure in (
            Figure(f"memory of {name} afterwards (RSS)", one.resident, "MiB"),
            Figure(f"memory of {name} afterwards (PSS)", one.proportional, "MiB"),
        )
    ]
