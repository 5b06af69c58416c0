"""Starting a task and completing it, without any credential: what the records of tasks cost."""

from typing import Final

from tests.bench.figures import Figure
from tests.bench.load import load
from tests.bench.stack import Bench

CALLERS: Final = (1, 32)
SECONDS, QUICK_SECONDS = 2.0, 0.3
_SIDES: Final = ("broker",)


async def run(bench: Bench) -> list[Figure]:
    """Start and complete as fast as the broker answers."""
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    figures: list[Figure] = []
    async with load(bench, max(CALLERS)) as callers:
        await callers.warm_up("empty tasks", max(CALLERS), seconds / 2, _SIDES)
        for number in CALLERS:
            spans = await callers.spans("empty tasks", number, seconds, rounds=1, sides=_SIDES)
            bench.spans.extend(spans.values())
            seen = spans["broker"]
            figures += [
                Figure(f"{number} callers: tasks a second, started and completed", seen.rate, "/s"),
                Figure(f"{number} callers: start, p50", seen.waits[0], "ms"),
                Figure(f"{number} callers: start, p99", seen.waits[2], "ms"),
                Figure(f"{number} callers: completion, p50", seen.ends[0], "ms"),
                Figure(f"{number} callers: completion, p99", seen.ends[2], "ms"),
                Figure(f"{number} callers: the broker's processor time for one task", seen.cpu["broker"], "ms"),
            ]
    return figures
