"""Database users through the broker, against a login that reads `database/creds` itself: in turns, within one run.

Directly, a task's users are taken back with the tokens that they were read
with. OpenBao drops users after it has answered, on either side; how long that
takes is what the scenario `task-end` measures.
"""

from typing import Final

from broker.dev.vault import DATABASE_ROLE
from tests.bench.figures import Figure, Span
from tests.bench.load import load
from tests.bench.stack import Bench

CREDENTIALS_PATH: Final = f"/v1/database/creds/{DATABASE_ROLE}"
CALLERS: Final = (1, 16)
SECONDS, QUICK_SECONDS = 3.0, 0.3
_SIDES: Final = ("broker", "direct")


async def run(bench: Bench) -> list[Figure]:
    """Measure tasks with ten users and with one."""
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    figures: list[Figure] = []
    async with load(bench, max(CALLERS), scope="leased", path=CREDENTIALS_PATH) as callers:
        for workload in ("tasks of ten", "tasks of one"):
            await callers.warm_up(workload, 1, seconds / 3, _SIDES)
            for number in CALLERS:
                spans = await callers.spans(workload, number, seconds, rounds=1, sides=_SIDES)
                bench.spans.extend(spans.values())
                figures += _figures(spans["broker"], spans["direct"])
    return figures


def _figures(broker: Span, direct: Span) -> list[Figure]:
    name = f"{broker.workload}, {broker.callers} callers"
    return [
        Figure(f"{name}: database users a second against logins that read", broker.rate / direct.rate, "x"),
        Figure(f"{name}: database users a second", broker.rate, "/s"),
        Figure(f"{name}: p50", broker.waits[0], "ms"),
        Figure(f"{name}: p50 directly", direct.waits[0], "ms"),
    ]
