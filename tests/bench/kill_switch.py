"""From `lock` on an agent to the refusal of everything it holds.

The agent holds batch tokens under a handful of tasks. From sending CreateLock
on, one token of each task is shown to OpenBao without a pause; after the reply
every single one is shown. All are refused from the last answer on that let any
of them in; what the last answer of all says about time includes the time that
asking thousands of times takes.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from credbroker.v1 import lock_pb2, lock_service_pb2
from sqlalchemy import Engine, func, select

from broker.dev.people import TRUST_DOMAIN
from broker.store import schema
from tests.bench.client import CALL_SECONDS, Agent, Servers, tls
from tests.bench.figures import Figure
from tests.bench.stack import Bench
from tests.bench.wire import WrongReply
from tests.bench.worker import Access, Link, worker

GOAL_SECONDS = 1.0
TASKS, CREDENTIALS, QUICK_CREDENTIALS = 5, 5_000, 200

_SAMPLERS = 2
# Half of what one connection may have under way.
_TOGETHER = 16
_PREFIX = "auth/token/create/bench"


async def run(bench: Bench) -> list[Figure]:
    """Lock one agent that holds thousands of credentials."""
    total = QUICK_CREDENTIALS if bench.quick else CREDENTIALS
    async with worker(hold, bench.access, token=bench.agents(1)[0], each=total // TASKS) as link:
        held: list[list[str]] = await link.hear()
    figures = await _lock(bench, held)
    if bench.compare:
        seconds = await _revoke_prefix(bench, total)
        figures.append(Figure(f"for comparison: revoke-prefix on {total:,} service tokens", seconds, "s"))
    return figures


async def hold(link: Link, access: Access, token: str, each: int) -> None:
    """Start the tasks, and get credentials for each."""
    free = asyncio.Semaphore(_TOGETHER)
    async with Agent(access, token) as agent:

        async def one(task_id: str) -> str:
            async with free:
                return (await agent.issue("batch", task_id)).credential.vault_token.token

        held = []
        for _ in range(TASKS):
            first = await agent.issue("batch")
            more = await asyncio.gather(*(one(first.task.id) for _ in range(each - 1)))
            held.append([first.credential.vault_token.token, *more])
    link.say(held)


async def _lock(bench: Bench, held: list[list[str]]) -> list[Figure]:
    tokens = [token for of_task in held for token in of_task]
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers(bench.access))
        shares = [tokens[number::_SAMPLERS] for number in range(_SAMPLERS)]
        samplers = [await stack.enter_async_context(worker(sample, bench.access, tokens=share)) for share in shares]
        for sampler in samplers:
            await sampler.hear()
        channel = await stack.enter_async_context(bench.channel())
        sent = time.monotonic()
        probes = [asyncio.create_task(_refused_at(servers, of_task[0])) for of_task in held]
        reply = await _create_lock(bench, channel)
        replied = time.monotonic()
        for sampler in samplers:
            sampler.say("go")
        refused = max(await asyncio.gather(*probes))
        seen = [await sampler.hear() for sampler in samplers]
        confirmed = await _all_confirmed(bench)
    alive = [at for honoured, _ in seen for at in honoured]
    if reply.revoked_issuances != len(tokens) or reply.ended_tasks != TASKS:
        raise WrongReply(f"the lock took {reply.revoked_issuances} credentials of {reply.ended_tasks} tasks back")
    return [
        Figure(f"lock to refusal of all {len(tokens):,} credentials", max([refused, *alive]) - sent, "s", GOAL_SECONDS),
        Figure("lock to reply", replied - sent, "s"),
        Figure("credentials that worked after the reply", len(alive), ""),
        Figure("lock to the last of all answers, all refused", max(at for _, at in seen) - sent, "s"),
        Figure("lock to confirmed in the records", confirmed - sent, "s"),
    ]


async def _refused_at(servers: Servers, token: str) -> float:
    await servers.until_token_refused(token)
    return time.monotonic()


async def _create_lock(bench: Bench, channel: Any) -> lock_service_pb2.CreateLockResponse:
    target = lock_pb2.LockTarget(agent=f"spiffe://{TRUST_DOMAIN}/agents/agent-0")
    request = lock_service_pb2.CreateLockRequest(target=target, reason="to be measured")
    metadata = [("authorization", f"Bearer {bench.admin_token()}")]
    call: Any = bench.locks(channel).CreateLock
    reply: lock_service_pb2.CreateLockResponse = await call(request, metadata=metadata, timeout=CALL_SECONDS)
    return reply


async def sample(link: Link, access: Access, tokens: list[str]) -> None:
    """Show every token until it is refused; say when those were let in that were, and when the last answer came."""

    async def let_in_until(token: str) -> float | None:
        at = None
        while await servers.honours_token(token):
            at = time.monotonic()
        return at

    async with Servers(access) as servers:
        if not all(await asyncio.gather(*(servers.honours_token(token) for token in tokens))):
            raise WrongReply("a fresh credential is refused")
        link.say("ready")
        await link.hear()
        async with asyncio.timeout(CALL_SECONDS):
            seen = await asyncio.gather(*(let_in_until(token) for token in tokens))
        link.say([[at for at in seen if at is not None], time.monotonic()])


async def _all_confirmed(bench: Bench) -> float:
    """Return when the records said of every ended task that Vault has confirmed."""
    open_ended = select(func.count()).where(
        schema.tasks.c.ended_at.is_not(None), schema.tasks.c.revocation_confirmed_at.is_(None)
    )

    def left(engine: Engine) -> int:
        with engine.begin() as conn:
            return conn.execute(open_ended).scalar_one()

    with bench.records() as engines:
        async with asyncio.timeout(60):
            while await asyncio.to_thread(left, engines.reader):  # noqa: ASYNC110 - another process writes them
                await asyncio.sleep(0.05)
    return time.monotonic()


async def _revoke_prefix(bench: Bench, count: int) -> float:
    """Return how long OpenBao takes to revoke as many service tokens at one prefix."""
    vault, root = bench.access.vault, bench.parts.openbao.root_token.reveal()
    headers = {"X-Vault-Token": root}
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(ssl=tls(bench.access), limit=2 * _TOGETHER)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def post(path: str, **body: Any) -> None:
            async with session.post(f"{vault}/v1/{path}", json=body) as reply:
                reply.raise_for_status()

        await post("auth/token/roles/bench", allowed_policies=["default"], orphan=True)
        await asyncio.gather(*(post(_PREFIX, policies=["default"], ttl="1h") for _ in range(count)))
        begun = time.monotonic()
        await post(f"sys/leases/revoke-prefix/{_PREFIX}", sync=True)
        return time.monotonic() - begun
