"""Ten thousand of a hundred thousand live credentials run out within one second, while agents go on issuing.

The records are put into the database beforehand; what hangs from Vault in
them, the anchors and the tokens of one in ten of the wave, does exist there.
Settled is when the records call none of the wave alive any more. Agents issue
at a fixed rate, and latencies count from when a request was due, so that
waiting behind a slow one is not left out.
"""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import aiohttp
import grpc
from sqlalchemy import Engine, func, select, text

from broker.dev.people import TRUST_DOMAIN
from broker.ids import new_id
from broker.model import (
    LIVE_ISSUANCES,
    AnchorRecord,
    AnchorState,
    Issuance,
    IssuanceState,
    Revocability,
    Task,
    TaskState,
)
from broker.store import schema
from broker.store.rows import Record, Rows
from tests.bench.client import Agent, tls
from tests.bench.figures import Figure, percentile
from tests.bench.stack import Bench
from tests.bench.worker import Access, Link, worker

R = TypeVar("R", bound=Record)

GOAL_SECONDS, GOAL_RATIO = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is.

    Attributes:
        tasks: Each with one anchor.
        live: Issuances, evenly over the tasks.
        wave: How many of them run out in one second.
        lead: Seconds from inserting the wave to its second.
        rate: Credentials a second that agents ask for meanwhile.
    """

    tasks: int
    live: int
    wave: int
    lead: float
    rate: int


FULL = Size(tasks=1_000, live=100_000, wave=10_000, lead=25, rate=80)
QUICK = Size(tasks=20, live=1_000, wave=100, lead=3, rate=20)
AGENTS = 16
WARM_UP_SECONDS = 3.0

_SCOPE = "wave"
_OWN_TOKEN_EVERY = 10
_CHUNK = 5_000
_LIFETIME = timedelta(hours=1)


async def run(bench: Bench) -> list[Figure]:
    """Let the wave pass while agents issue."""
    size = QUICK if bench.quick else FULL
    with bench.records() as engines:
        accessors = await _tokens(bench, size.tasks, datetime.now(UTC) + 2 * _LIFETIME)
        anchors = await asyncio.to_thread(_insert_tasks, engines.writer, accessors)
        quiet = _issuances(anchors, size.live - size.wave, datetime.now(UTC) + _LIFETIME, timedelta(minutes=5), [])
        await asyncio.to_thread(_insert, engines.writer, Rows(schema.issuances, Issuance), quiet)
        await asyncio.to_thread(_analyse, engines.writer)
        begins = time.monotonic() + size.lead
        due = datetime.now(UTC) + timedelta(seconds=size.lead)
        own = await _tokens(bench, size.wave // _OWN_TOKEN_EVERY, due)
        wave = _issuances(anchors, size.wave, due, timedelta(seconds=1), own)
        await asyncio.to_thread(_insert, engines.writer, Rows(schema.issuances, Issuance), wave)
        async with worker(issue, bench.access, tokens=bench.agents(AGENTS), rate=size.rate) as link:
            measured_from = await link.hear() + (0 if bench.quick else WARM_UP_SECONDS)
            await _still_to_come(engines.reader, due, size.wave)
            await asyncio.sleep(begins - time.monotonic())
            used = bench.processor_time()
            settled = await _until_settled(engines.reader, due)
            used = bench.processor_time() - used
            link.say("enough")
            samples: list[tuple[float, float | None]] = await link.hear()
    before = [took for at, took in samples if measured_from <= at < begins and took is not None]
    during = [took for at, took in samples if begins <= at < settled and took is not None]
    figures = _figures(size, settled - begins - 1, before, during)
    figures.append(Figure("processor time of the broker, agents' requests included", used, "s"))
    return [*figures, Figure("requests refused for want of room", sum(took is None for _, took in samples), "", 0)]


def _figures(size: Size, settled: float, before: Sequence[float], during: Sequence[float]) -> list[Figure]:
    name = f"{size.live:,} live, {size.wave:,} expire in one second"
    ratio = percentile(during, 0.99) / percentile(before, 0.99)
    return [
        Figure(f"{name}: all settled after", settled, "s", GOAL_SECONDS),
        Figure("issuing p99 meanwhile, compared with before", ratio, "x", GOAL_RATIO),
        Figure("issuing p50 before", percentile(before, 0.5), "s"),
        Figure("issuing p50 meanwhile", percentile(during, 0.5), "s"),
        Figure("issuing p99 before", percentile(before, 0.99), "s"),
        Figure("issuing p99 meanwhile", percentile(during, 0.99), "s"),
        Figure("requests meanwhile", len(during), ""),
    ]


async def issue(link: Link, access: Access, tokens: list[str], rate: int) -> None:
    """Issue at a fixed rate until told that it is enough; one task for each agent."""
    samples: list[tuple[float, float | None]] = []
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(Agent(access, token)) for token in tokens]
        tasks = [(await agent.issue("batch")).task.id for agent in agents]

        async def one(number: int, due: float) -> None:
            try:
                await agents[number].issue("batch", tasks[number])
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                samples.append((due, None))
            else:
                samples.append((due, time.monotonic() - due))

        start = time.monotonic()
        link.say(start)
        enough = asyncio.create_task(link.hear())
        async with asyncio.TaskGroup() as running:
            count = 0
            while not enough.done():
                due = start + count / rate
                await asyncio.wait([enough], timeout=max(0.0, due - time.monotonic()))
                running.create_task(one(count % len(agents), due))
                count += 1
    link.say(samples)


async def _tokens(bench: Bench, count: int, ending: datetime) -> list[str]:
    """Make that many service tokens in Vault, which end by themselves then, and return their accessors."""
    headers = {"X-Vault-Token": bench.parts.openbao.root_token.reveal()}
    url = f"{bench.access.vault}/v1/auth/token/create-orphan"
    connector = aiohttp.TCPConnector(ssl=tls(bench.access), limit=32)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one() -> str:
            ttl = math.ceil((ending - datetime.now(UTC)).total_seconds())
            async with session.post(url, json={"policies": ["default"], "ttl": f"{ttl}s"}) as reply:
                reply.raise_for_status()
                return str((await reply.json())["auth"]["accessor"])

        return await asyncio.gather(*(one() for _ in range(count)))


def _insert_tasks(engine: Engine, accessors: Sequence[str]) -> list[AnchorRecord]:
    now = datetime.now(UTC)
    tasks = [_task(number, now) for number in range(len(accessors))]
    anchors = [_anchor(task, accessor, now) for task, accessor in zip(tasks, accessors, strict=True)]
    rows = Rows(schema.tasks, Task)
    with engine.begin() as conn:
        conn.execute(rows.insert, [{**rows.values(task), "due_at": task.deadline} for task in tasks])
    _insert(engine, Rows(schema.anchors, AnchorRecord), iter(anchors))
    return anchors


def _task(number: int, now: datetime) -> Task:
    return Task(
        id=new_id(),
        agent=_agent(number),
        purpose="to be measured",
        labels={"team": "search"},
        declared_scopes=(),
        state=TaskState.ACTIVE,
        created_at=now,
        deadline=now + 2 * _LIFETIME,
        heartbeat_interval=None,
        heartbeat_at=None,
    )


def _agent(number: int) -> str:
    return f"spiffe://{TRUST_DOMAIN}/agents/wave-{number % 100}"


def _anchor(task: Task, accessor: str, now: datetime) -> AnchorRecord:
    return AnchorRecord(
        id=new_id(),
        task_id=task.id,
        role="credbroker-wave-0123456789ab",
        replica="to-be-measured",
        state=AnchorState.ACTIVE,
        accessor=accessor,
        created_at=now,
        expires_at=now + 2 * _LIFETIME,
    )


def _issuances(
    anchors: Sequence[AnchorRecord], count: int, due: datetime, spread: timedelta, accessors: Sequence[str]
) -> Iterator[Issuance]:
    """Yield issuances that expire evenly over a time from a moment on; some have tokens of their own."""
    now, own = datetime.now(UTC), list(accessors)
    for number in range(count):
        anchor = anchors[number % len(anchors)]
        accessor = own.pop() if own and number % _OWN_TOKEN_EVERY == 0 else None
        expires_at = due + spread * (number / count)
        yield Issuance(
            id=new_id(),
            task_id=anchor.task_id,
            anchor_id=anchor.id,
            agent=_agent(number % len(anchors)),
            scope=_SCOPE,
            scope_version=1,
            kind="vault_token",
            parameters={},
            state=IssuanceState.ACTIVE,
            revocability=Revocability.WITH_TASK if accessor is None else Revocability.INDIVIDUAL,
            renewable=False,
            created_at=now,
            expires_at=expires_at,
            max_expires_at=expires_at,
            fingerprint=f"{number:064x}",
            accessor=accessor,
        )


def _insert(engine: Engine, rows: Rows[R], records: Iterator[R]) -> None:
    while chunk := [rows.values(record) for record in islice(records, _CHUNK)]:
        with engine.begin() as conn:
            conn.execute(rows.insert, chunk)


def _analyse(engine: Engine) -> None:
    """Give the database the statistics that it would have gathered while all this came one by one."""
    with engine.begin() as conn:
        conn.execute(text("ANALYZE"))


async def _still_to_come(engine: Engine, due: datetime, count: int) -> None:
    """Check that the agents were at work before the wave began."""
    if await asyncio.to_thread(_left, engine, due) != count or datetime.now(UTC) > due:
        raise RuntimeError("the wave began before the agents did; give it a longer lead")


async def _until_settled(engine: Engine, due: datetime) -> float:
    """Return when the records called none of the wave alive."""
    async with asyncio.timeout(120):
        while await asyncio.to_thread(_left, engine, due):  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.1)
    return time.monotonic()


def _left(engine: Engine, due: datetime) -> int:
    counting = select(func.count()).where(
        schema.issuances.c.scope == _SCOPE,
        schema.issuances.c.expires_at >= due,
        schema.issuances.c.expires_at < due + timedelta(seconds=1),
        schema.issuances.c.state.in_(LIVE_ISSUANCES),
    )
    with engine.begin() as conn:
        return conn.execute(counting).scalar_one()
