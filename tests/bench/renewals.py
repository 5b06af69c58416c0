"""Renewing the lease of a database user through the broker, against `sys/leases/renew` directly."""

from typing import Final

from tests.bench.figures import Figure
from tests.bench.leased import CREDENTIALS_PATH
from tests.bench.load import load
from tests.bench.stack import Bench

CALLERS: Final = (1, 16)
SECONDS, QUICK_SECONDS = 2.0, 0.3
_SIDES: Final = ("broker", "direct")


async def run(bench: Bench) -> list[Figure]:
    """Renew one credential for each caller, again and again."""
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    figures: list[Figure] = []
    async with load(bench, max(CALLERS), scope="leased", path=CREDENTIALS_PATH) as callers:
        await callers.warm_up("renewals", max(CALLERS), seconds / 2, _SIDES)
        for number in CALLERS:
            spans = await callers.spans("renewals", number, seconds, rounds=1, sides=_SIDES)
            bench.spans.extend(spans.values())
            broker, direct = spans["broker"], spans["direct"]
            figures += [
                Figure(f"{number} callers: renewals a second against direct ones", broker.rate / direct.rate, "x"),
                Figure(f"{number} callers: renewals a second", broker.rate, "/s"),
                Figure(f"{number} callers: p50", broker.waits[0], "ms"),
                Figure(f"{number} callers: the broker's processor time for one", broker.cpu["broker"], "ms"),
            ]
    return figures
