"""What bounds issuing: OpenBao with no broker before it, and a broker with nothing in it, against logins.

=========  =====================================================================
side       what is measured
=========  =====================================================================
direct     a login, as in ``issuing``
OpenBao    the broker's own calls to OpenBao, made by the load itself: a broker
           that cost nothing could not be faster
broker     `tests.bench.bare`: gRPC, the same calls to OpenBao, the same
           transactions, and nothing else
=========  =====================================================================

The three take turns within one run.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from broker.dev.processes import ManagedProcess, free_port
from broker.dev.server import environment, health_check
from broker.store.schema import anchors
from tests.bench.client import Agent
from tests.bench.figures import Figure, Span, against
from tests.bench.issuing import rounds_of
from tests.bench.load import load
from tests.bench.stack import Bench

CALLERS: Final = (1, 32)
QUICK_CALLERS: Final = (1, 4)
BARE: Final = "a bare broker"
SECONDS, QUICK_SECONDS, WARM_UP_SECONDS = 2.0, 0.3, 1.0
WITHOUT_BROKER: Final = {
    "steady": ("direct", "OpenBao", "broker"),
    "tasks of ten": ("direct", "OpenBao", "broker"),
    "tasks of one": ("direct", "OpenBao", "broker"),
}


async def run(bench: Bench) -> list[Figure]:
    """Measure each workload alone and with many callers."""
    numbers = QUICK_CALLERS if bench.quick else CALLERS
    seconds, warm_up = (QUICK_SECONDS, QUICK_SECONDS) if bench.quick else (SECONDS, WARM_UP_SECONDS)
    role = await _role(bench)
    figures: list[Figure] = []
    async with (
        _bare(bench, role) as bare,
        load(bare, max(numbers), identity=(_broker_token(bench), role)) as callers,
    ):
        for workload, sides in WITHOUT_BROKER.items():
            await callers.warm_up(workload, max(numbers), warm_up, sides)
            for number in numbers:
                rounds = rounds_of(workload, number, quick=bench.quick)
                spans = await callers.spans(workload, number, seconds, rounds=rounds, sides=sides)
                bench.spans.extend(replace(span, side=_NAMES[side]) for side, span in spans.items())
                figures += _figures(spans)
    return figures


_NAMES: Final = {"direct": "direct", "OpenBao": "OpenBao alone", "broker": "bare broker"}


def _figures(spans: dict[str, Span]) -> Sequence[Figure]:
    direct = spans["direct"]
    figures = []
    for side, name in (("OpenBao", "OpenBao alone"), ("broker", BARE)):
        if side in spans:
            span, load_of = spans[side], f"{direct.workload}, {direct.callers} callers"
            figures += [
                *against(f"{load_of}: {name}, credentials a second against logins", span, direct),
                Figure(f"{load_of}: {name}, p50 against a login's", span.waits[0] / direct.waits[0], "x"),
                Figure(f"{load_of}: {name}, OpenBao's processor time for one", span.cpu["OpenBao"], "ms"),
            ]
            if side == "broker":
                figures.append(Figure(f"{load_of}: {name}, its processor time for one", span.cpu["broker"], "ms"))
    return figures


async def _role(bench: Bench) -> str:
    """Return the name of the scope's token role, after a first credential."""
    async with Agent(bench.access, bench.agents(1)[0]) as agent:
        await agent.complete((await agent.issue("batch")).task.id)
    with bench.records() as engines, engines.reader.connect() as conn, conn.begin():
        return str(conn.execute(anchors.select().with_only_columns(anchors.c.role)).scalars().first())


def _broker_token(bench: Bench) -> str:
    role = bench.parts.identities.broker
    body = {"role_id": role.role_id, "secret_id": role.secret_id_file.read_text()}
    token: str = bench.parts.openbao.client().adapter.post("/v1/auth/approle/login", json=body)["auth"]["client_token"]
    return token


@asynccontextmanager
async def _bare(bench: Bench, role: str) -> AsyncIterator[Bench]:
    """Give a bare broker on the same database in the place of the real one, which has nothing to do meanwhile."""
    ports = replace(bench.ports, bearer=free_port())
    command = [sys.executable, "-m", "tests.bench.bare", str(bench.folder / "broker.yaml"), str(ports.bearer), role]
    with health_check(ports.bearer, bench.ca_file) as ready:
        process = ManagedProcess.start(
            "the bare broker", command, log=bench.folder / "bare.log", ready=ready, env=environment({})
        )
    with process:
        yield replace(bench, broker=process, ports=ports)
