"""Strangers at the door: 10,000 silent connections and a flood of resets, and how callers fare meanwhile.

Every silent connection begins a TLS handshake and says no more; whichever the
broker closes is opened again. Others open calls and reset them at once, 5,000
a second: without a bound the flood would measure how the machine divides its
processors between the broker and those who attack it. The callers were
connected before: they issue batch credentials all the time.
"""

import asyncio
import resource
import time

from tests.bench.client import Agent
from tests.bench.figures import Figure, percentile
from tests.bench.stack import Bench
from tests.bench.worker import Access, Link, worker
from tests.fakes import strangers
from tests.fakes.strangers import Report
from tests.fixtures.waiting import until

SILENT, QUICK_SILENT = 10_000, 200
SILENT_PROCESSES = 2
FLOODS, RESETS_PER_SECOND = 4, 5_000
CALLERS = 4
SECONDS, QUICK_SECONDS = 10.0, 1.0
GOAL_RATIO = 2.0
# `limits.max_connections` handshakes under way, at the 75 KiB that gRPC holds for each, and some room.
GOAL_GROWTH_MIB = 128.0
_PAUSE = 0.02


async def run(bench: Bench) -> list[Figure]:
    """Measure callers and memory before, during and after."""
    count = QUICK_SILENT if bench.quick else SILENT
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    async with worker(callers, bench.access, tokens=bench.agents(CALLERS)) as calling:
        await _measured(calling, QUICK_SECONDS)
        before, memory = await _measured(calling, seconds), bench.memory()
        async with asyncio.TaskGroup() as group, asyncio.timeout(600):
            stop = asyncio.Event()
            ready = [asyncio.Event() for _ in range(SILENT_PROCESSES + 1)]
            works = [
                *(_misdoing(bench, "silent", count // SILENT_PROCESSES, one, stop) for one in ready[1:]),
                _misdoing(bench, "resets", FLOODS, ready[0], stop),
            ]
            misdeeds = [group.create_task(work) for work in works]
            for one in ready:
                await one.wait()
            during, memory_during = await _measured(calling, seconds), bench.memory()
            stop.set()
        *silent, resets = [task.result() for task in misdeeds]
        after, memory_after = await _measured(calling, seconds), bench.memory()
    return [
        Figure("issuing during the attack, p99 against before", _ratio(during, before, 0.99), "x", GOAL_RATIO),
        Figure("issuing during the attack, p50 against before", _ratio(during, before, 0.5), "x"),
        *(
            Figure(f"issuing {when}, p{round(share * 100)}", percentile(samples, share) * 1000, "ms")
            for when, samples in (("before", before), ("during", during), ("after", after))
            for share in (0.5, 0.99)
        ),
        Figure("memory gained during the attack", memory_during - memory, "MiB", GOAL_GROWTH_MIB),
        Figure("memory gained after it", memory_after - memory, "MiB"),
        Figure("silent connections opened", sum(done for done, _ in silent), ""),
        Figure("silent connections that the broker closed", sum(closed for _, closed in silent), ""),
        Figure("streams reset", resets[0], ""),
    ]


def _ratio(during: list[float], before: list[float], share: float) -> float:
    return percentile(during, share) / percentile(before, share)


async def _measured(calling: Link, seconds: float) -> list[float]:
    calling.say(seconds)
    samples: list[float] = await calling.hear()
    return samples


async def callers(link: Link, access: Access, tokens: list[str]) -> None:
    """Issue for as many seconds as told, one credential at a time for each token, and say how long each took."""
    agents = [Agent(access, token) for token in tokens]
    for agent in agents:
        await agent.__aenter__()
    while True:
        seconds = await link.hear()
        end = time.monotonic() + seconds
        samples: list[float] = []

        async def work(agent: Agent, end: float = end, samples: list[float] = samples) -> None:
            while (asked := time.monotonic()) < end:
                await agent.issue("batch")
                samples.append(time.monotonic() - asked)
                await asyncio.sleep(_PAUSE)

        await asyncio.gather(*(work(agent) for agent in agents))
        link.say(samples)


async def _misdoing(
    bench: Bench, misdeed: str, count: int, ready: asyncio.Event, stop: asyncio.Event
) -> tuple[int, int]:
    async with worker(misdo, bench.access, misdeed=misdeed, count=count) as link:
        await link.hear()
        ready.set()
        await stop.wait()
        link.say("stop")
        done, closed = await link.hear()
        return int(done), int(closed)


async def misdo(link: Link, access: Access, misdeed: str, count: int) -> None:
    """Do it until told to stop, and say what was done."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    host, _, port = access.broker.rpartition(":")
    report = Report()
    if misdeed == "silent":
        doing = strangers.silent(host, int(port), count, report)
    else:
        doing = strangers.resets(host, int(port), count, report, RESETS_PER_SECOND / count)
    work = asyncio.ensure_future(doing)
    await until(lambda: report.done >= count, seconds=300)
    link.say("ready")
    await link.hear()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    link.say([report.done, report.closed])
