"""Memory of a broker after load, with nothing in its records and with 100,000 live issuances.

Both brokers get the same load for the same time: what one keeps of live
issuances shows as the difference.
"""

from tests.bench.figures import Figure
from tests.bench.load import load
from tests.bench.stack import Bench
from tests.bench.volume_fill import History

GOAL_GROWTH_MIB = 20.0
LIVE, QUICK_LIVE = 100_000, 1_000
AFTER_LOAD = "memory after load"
CALLERS, SECONDS, QUICK_SECONDS = 16, 6.0, 0.5


async def run(bench: Bench) -> list[Figure]:
    """Compare a broker on an empty database with one that has much to look after."""
    count = QUICK_LIVE if bench.quick else LIVE
    idle = bench.memory()
    empty = await _after_load(bench)
    history = History(issuances=count, live=count)
    with bench.parts.broker(bench.database, quick=bench.quick, compare=False, history=history) as full:
        begun = full.memory()
        held = await _after_load(full)
    return [
        Figure("memory after start", idle, "MiB"),
        Figure(AFTER_LOAD, empty, "MiB"),
        Figure(f"memory after start with {count:,} live issuances", begun, "MiB"),
        Figure(f"memory after load with {count:,} live issuances", held, "MiB"),
        Figure(added_by(count), max(0.0, held - empty), "MiB", GOAL_GROWTH_MIB),
    ]


def added_by(count: int) -> str:
    """Return the name of the figure of what so many live issuances add."""
    return f"what {count:,} live issuances add"


async def _after_load(bench: Bench) -> float:
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    async with load(bench, CALLERS) as callers:
        await callers.warm_up("tasks of ten", CALLERS, seconds, ("broker",))
    return bench.memory()
