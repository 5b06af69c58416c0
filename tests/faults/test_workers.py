"""Several workers on one machine: they share the work, and nobody notices when one is killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from credbroker.aio import AsyncClient

from tests.fixtures.replicas import Process, reconfigure, rows, serving
from tests.fixtures.scraping import scrape
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World

WORKERS = 3
CLIENTS = 12
ISSUE = "credbroker.v1.CredentialService/IssueCredential"


@pytest.fixture
async def workers(bare_world: World) -> AsyncIterator[Process]:
    world = bare_world
    reconfigure(world, metrics={"address": "127.0.0.1:0"})
    await world.start()
    await world.apply(*SCOPES)
    await world.app.stop()
    with serving(world, "--workers", str(WORKERS)) as process:
        await process.tells("ready", WORKERS)
        yield process


class Agents:
    """Get a credential for one task after the other, each with a client of their own."""

    def __init__(self) -> None:
        self.served = [0] * CLIENTS
        self.going = True

    async def work(self, number: int, client: AsyncClient) -> None:
        while self.going:
            async with client.task("a test") as task:
                assert (await task.credential("reports-secret")).token
            self.served[number] += 1

    async def go_on(self, rounds: int) -> None:
        """Wait until everybody was served that many times more."""
        wanted = [count + rounds for count in self.served]
        await until(lambda: all(count >= least for count, least in zip(self.served, wanted, strict=True)), seconds=60)


@asynccontextmanager
async def agents_at(world: World, address: str) -> AsyncIterator[Agents]:
    """Let agents work; whatever failed for one fails the test."""
    agents, token, ca_file = Agents(), world.issuer.token("agents/reports").reveal(), world.folder / "ca.pem"
    clients = [AsyncClient(address, token=token, ca_file=ca_file) for _ in range(CLIENTS)]
    try:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(agents.work(number, client))
            yield agents
            agents.going = False
    finally:
        for client in clients:
            await client.close()


@pytest.mark.long
async def test_a_killed_worker_is_replaced_and_nobody_notices(bare_world: World, workers: Process) -> None:
    first = {record["replica"] for record in workers.told("started")}
    victim = workers.told("started a worker")[0]["pid"]
    where = workers.told("starting workers")[0]
    async with agents_at(bare_world, where["bearer"]) as agents:
        await agents.go_on(3)
        served_by = {replica for (replica,) in rows(bare_world, "SELECT replica FROM anchors")}
        assert len(served_by & first) > 1
        os.kill(victim, signal.SIGKILL)
        await workers.tells("a worker has ended", pid=victim, exit_code=-signal.SIGKILL)
        await agents.go_on(3)
        await workers.tells("ready", WORKERS + 1)
        await agents.go_on(3)

    figures = await scrape(where["metrics"])
    answered = sum(
        value
        for (name, labels), value in figures.items()
        if name == "credbroker_requests_total" and {("code", "OK"), ("method", ISSUE)} <= labels
    )
    assert answered >= sum(agents.served)
    started = {record["replica"] for record in workers.told("started")}
    workers.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(workers.process.wait, 30) == 0
    assert len(started) == WORKERS + 1
    assert len(rows(bare_world, "SELECT name FROM replicas")) == 1, "the one that was killed could not take it away"
    assert len(workers.told("drained")) == WORKERS
