"""How the cost of issuing grows: with 10,000 scopes, and with 100,000 live issuances.

A broker with little and one with much take turns under the same load; the
ratios compare the two.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

import grpc
from sqlalchemy import Engine

from broker.model import ScopeRecord
from broker.store import policy, scopes
from tests.bench.client import Agent
from tests.bench.figures import Figure, Span
from tests.bench.load import Load, load
from tests.bench.stack import Bench, scope_text
from tests.bench.volume_fill import History
from tests.bench.wire import WrongReply

SCOPES, QUICK_SCOPES = 10_000, 50
LIVE, QUICK_LIVE = 100_000, 500
CALLERS: Final = (1, 16)
SECONDS, QUICK_SECONDS = 2.0, 0.3
_LONGEST_SECONDS: Final = 120
_BROKER: Final = ("broker",)


async def run(bench: Bench) -> list[Figure]:
    """Compare a broker that has little with others that have much of one thing."""
    live, many = (QUICK_LIVE, QUICK_SCOPES) if bench.quick else (LIVE, SCOPES)
    history = History(issuances=live, live=live)
    figures: list[Figure] = []
    with bench.parts.broker(bench.database, quick=bench.quick, compare=False, history=history) as full:
        figures += await _compared(bench, full, f"{live:,} live issuances")
    with bench.parts.broker(bench.database, quick=bench.quick, compare=False) as full:
        before = full.memory()
        with full.records() as engines:
            await asyncio.to_thread(_add_scopes, engines.writer, many)
        taken, refused = await _first_issue(full)
        figures += await _compared(bench, full, f"{many:,} scopes")
        figures.append(Figure(f"first credential after {many:,} scopes were added", taken, "s"))
        figures.append(Figure("requests refused until then", refused, ""))
        figures += await asyncio.to_thread(_changed, full, many)
        figures.append(Figure(f"memory that {many:,} scopes add", max(0.0, full.memory() - before), "MiB"))
    return figures


async def _compared(little: Bench, much: Bench, what: str) -> list[Figure]:
    seconds = QUICK_SECONDS if little.quick else SECONDS
    figures: list[Figure] = []
    async with AsyncExitStack() as held:
        loads = [await held.enter_async_context(load(one, max(CALLERS))) for one in (little, much)]
        for one in loads:
            await one.warm_up("steady", max(CALLERS), seconds / 2, _BROKER)
        for number in CALLERS:
            base, grown = [await _span(one, number, seconds) for one in loads]
            figures += [
                Figure(f"{what}, {number} callers: p50 against few", grown.waits[0] / base.waits[0], "x"),
                Figure(f"{what}, {number} callers: processor time", grown.cpu["broker"], "ms"),
                Figure(f"few beside {what}, {number} callers: processor time", base.cpu["broker"], "ms"),
            ]
    return figures


async def _span(at: Load, callers: int, seconds: float) -> Span:
    return (await at.spans("steady", callers, seconds, rounds=1, sides=_BROKER))["broker"]


def _add_scopes(engine: Engine, count: int) -> None:
    """Store scopes beside the API, which would make two objects in Vault for each."""
    now = datetime.now(UTC)
    with engine.begin() as conn:
        for number in range(count):
            name = f"more-{number}"
            scopes.insert(
                conn,
                ScopeRecord(
                    name=name,
                    version=1,
                    etag=f"etag-{number}",
                    document=scope_text(name, "batch"),
                    created_at=now,
                    creator="the benchmark",
                ),
            )
        policy.raise_revision(conn)


def _changed(bench: Bench, among: int) -> list[Figure]:
    """Plan and apply a change of one scope, as an admin would."""
    document = bench.scopes / "service.yaml"
    document.write_text(document.read_text().replace("default: 15m", "default: 10m"))
    times, told = [], []
    for command in (("plan",), ("apply", "--yes"), ("plan",)):
        began = time.monotonic()
        told.append(bench.admin("scopes", *command, str(document)))
        times.append(time.monotonic() - began)
    if "service" not in told[0] or "nothing to change" not in told[2]:
        raise WrongReply(f"plans that do not fit a change that was applied between them: {told}")
    plan, apply, _ = times
    return [
        Figure(f"plan of one scope among {among:,}", plan, "s"),
        Figure(f"apply of one scope among {among:,}", apply, "s"),
    ]


async def _first_issue(bench: Bench) -> tuple[float, int]:
    """Return how long it takes until a request is granted that has to learn all scopes, and how many were refused."""
    refused = 0
    async with Agent(bench.access, bench.agents(1)[0]) as agent, asyncio.timeout(_LONGEST_SECONDS):
        began = time.monotonic()
        while True:
            try:
                await agent.issue("batch")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                refused += 1
            else:
                return time.monotonic() - began, refused
