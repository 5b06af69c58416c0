"""From the end of a task to the moment its credential is refused, while agents issue and complete without a pause.

The time counts from sending CompleteTask to the first refusal that an agent
sees, asking from the reply on: an upper bound, by the asking itself. Tokens are
shown to OpenBao, database users log in to PostgreSQL.
"""

import asyncio
import time

from tests.bench.client import Agent, Servers
from tests.bench.figures import Figure, percentile
from tests.bench.stack import CREDENTIALS, Bench
from tests.bench.wire import WrongReply
from tests.bench.worker import Access, Link, worker

GOAL_SECONDS = 1.0
AGENTS, PROCESSES = 16, 2
WARM_UP_SECONDS, SECONDS = 3.0, 20.0
QUICK_SECONDS = 1.0


async def run(bench: Bench) -> list[Figure]:
    """Measure each kind of credential."""
    figures: list[Figure] = []
    for scope in CREDENTIALS:
        measured = [sample for part in await _measure(bench, scope) for sample in part]
        ends = [end for _, end in measured]
        seconds = QUICK_SECONDS if bench.quick else SECONDS
        figures += [
            Figure(f"{scope}: end of task to refusal, p99", percentile(ends, 0.99), "s", GOAL_SECONDS),
            Figure(f"{scope}: end of task to refusal, p50", percentile(ends, 0.5), "s"),
            Figure(f"{scope}: issuing, p99", percentile((issue for issue, _ in measured), 0.99), "s"),
            Figure(f"{scope}: tasks per second", len(measured) / seconds, "/s"),
        ]
    return figures


async def _measure(bench: Bench, scope: str) -> list[list[tuple[float, float]]]:
    tokens, access = bench.agents(AGENTS), bench.access
    seconds = (0.0, QUICK_SECONDS) if bench.quick else (WARM_UP_SECONDS, SECONDS)
    shares = [tokens[number::PROCESSES] for number in range(PROCESSES)]

    async def measure(share: list[str]) -> list[tuple[float, float]]:
        async with worker(agents, access, scope=scope, tokens=share, seconds=seconds) as link:
            samples: list[tuple[float, float]] = await link.hear()
            return samples

    return await asyncio.gather(*(measure(share) for share in shares))


async def agents(link: Link, access: Access, scope: str, tokens: list[str], seconds: tuple[float, float]) -> None:
    """Issue, complete and see the refusal, over and over: one task at a time for each token."""
    warm_up, measured = seconds
    start = time.monotonic() + warm_up
    samples: list[tuple[float, float]] = []
    async with Servers(access) as servers:

        async def work(token: str) -> None:
            async with Agent(access, token) as agent:
                while (begun := time.monotonic()) < start + measured:
                    issued = await agent.issue(scope)
                    got = time.monotonic()
                    if not await servers.honours(issued.credential):
                        raise WrongReply("a fresh credential is refused")
                    ending = time.monotonic()
                    await agent.complete(issued.task.id)
                    await servers.until_refused(issued.credential)
                    if begun >= start:
                        samples.append((got - begun, time.monotonic() - ending))

        await asyncio.gather(*(work(token) for token in tokens))
    link.say(samples)
