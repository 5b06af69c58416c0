"""Overload, impatience and malice: what is out is taken back, nothing piles up, and others go on being served."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from credbroker.v1 import credential_service_pb2, lock_pb2, lock_service_pb2, task_pb2, task_service_pb2

from broker import issue
from tests.fakes import strangers
from tests.faults.test_promises import Minted, dead, works
from tests.fixtures.waiting import until
from tests.fixtures.world import ENGINE, SCOPES, Caller, World, struct

CHILD, LEASE = "auth/token/create", f"{ENGINE}/creds/"
MIB = 1024 * 1024

Asking: TypeAlias = "grpc.aio.UnaryUnaryCall[object, object]"


async def a_task(agent: Caller, scope: str, parameters: dict[str, str]) -> str:
    """Return a task with an anchor for a scope."""
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    task = (await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))).task.id
    await agent.issue(scope, task_id=task, parameters=parameters)
    return str(task)


def asking(agent: Caller, scope: str, task: str, parameters: dict[str, str], timeout: float) -> Asking:
    """Ask for a credential and give it so many seconds."""
    request = credential_service_pb2.IssueCredentialRequest(scope=scope, task_id=task, parameters=struct(parameters))
    call: Asking = agent.credentials.IssueCredential(request, timeout=timeout)
    return call


async def settled(world: World) -> bool:
    """Whether nothing is under way any more."""
    return not await world.issuances("state = MINTING") and not await world.issuances("state = REVOKING")


KINDS = [
    pytest.param("reports-service", CHILD, {}, id="service child"),
    pytest.param("reports-db", CHILD, {"role": "readonly"}, id="holder"),
    pytest.param("reports-db", LEASE, {"role": "readonly"}, id="lease"),
]


@pytest.mark.parametrize(("scope", "path", "parameters"), KINDS)
@pytest.mark.parametrize(
    "answers", [pytest.param(True, id="late answer"), pytest.param(False, id="no answer", marks=pytest.mark.long)]
)
async def test_what_is_minted_beyond_the_callers_deadline_is_revoked(
    bare_world: World, scope: str, path: str, parameters: dict[str, str], answers: bool
) -> None:
    world = bare_world
    if not answers:
        world.hasten()
    await world.start()
    await world.apply(*SCOPES)
    agent = world.caller()
    task = await a_task(agent, scope, parameters)
    minted = Minted(world)
    rule = world.proxy.fail(path, "hang_after")

    call = asking(agent, scope, task, parameters, timeout=0.3)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await rule.seen.wait()
    if answers:
        rule.release.set()

    assert minted.children
    for token in minted.children:
        await until(dead(world, token))
    await until(lambda: settled(world))
    rule.release.set()
    again = agent if answers else world.caller()
    assert (await again.issue(scope, task_id=task, parameters=parameters)).credential.issuance_id


async def test_late_knowledge_costs_the_one_credential_and_not_its_neighbours(world: World) -> None:
    agent = world.caller()
    task = await a_task(agent, "reports-service", {})
    neighbour = await agent.issue("reports-service", task_id=task)
    rule = world.proxy.fail(CHILD, "hang_after")
    call = asking(agent, "reports-service", task, {}, timeout=0.3)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await rule.seen.wait()
    rule.release.set()
    await until(lambda: revoked(world))
    assert works(world, neighbour.credential.vault_token.token)


async def revoked(world: World) -> bool:
    found = await world.issuances("state = REVOKED")
    return [issuance.end_reason for issuance in found] == ["caller.gone"]


async def test_with_too_little_time_vault_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issue, "SHORTEST_TIME", timedelta(minutes=1))
    asked = world.proxy.count(CHILD)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.caller().issue("reports-service")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert world.proxy.count(CHILD) == asked
    assert [event.reason for event in await world.events('type = "request.failed"')] == ["DEADLINE_EXCEEDED"]
    assert not await world.issuances()


@pytest.mark.long
async def test_asking_and_going_away_in_a_loop_piles_nothing_up(world: World) -> None:
    agent = world.caller()
    task = await a_task(agent, "reports-service", {})
    rule = world.proxy.fail(CHILD, "hang_after", times=1000)
    most = 0
    for _ in range(300):
        call = asking(agent, "reports-service", task, {}, timeout=20)
        await asyncio.sleep(0.005)
        call.cancel()
        most = max(most, errands())
    assert rule.seen.is_set()
    assert 0 < most <= world.settings.limits.max_running
    # The kill switch has a lane of its own.
    lock = lock_service_pb2.CreateLockRequest(
        target=lock_pb2.LockTarget(agent="spiffe://example.test/agents/other"), reason="a test"
    )
    await world.caller("admins/root").locks.CreateLock(lock)
    world.proxy.heal()
    rule.release.set()
    await until(lambda: errands() == 0)
    await until(lambda: settled(world))


def errands() -> int:
    """How many requests for credentials are under way, whoever still waits for them."""
    return sum(task.get_name() == "issue" for task in asyncio.all_tasks())


@asynccontextmanager
async def misdoing(misdeed: str, address: str, count: int) -> AsyncIterator[None]:
    """Let strangers do their worst for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        strangers.__name__,
        misdeed,
        address,
        str(count),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()
        assert int((await process.stdout.read()).split()[0]) >= count
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def memory() -> int:
    """Return the bytes that this process, broker included, holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


@pytest.mark.long
async def test_strangers_stop_nobody(world: World) -> None:
    agent, known = world.caller(), world.workload("spiffe://example.test/agents/known")
    task = await a_task(agent, "reports-secret", {})
    await known.issue("reports-secret")
    before = memory()
    address = world.app.addresses["bearer"]
    async with misdoing("silent", address, 300), misdoing("resets", address, 4):
        for _ in range(10):
            await agent.issue("reports-secret", task_id=task)
            await known.issue("reports-secret")
        assert memory() - before < 96 * MIB
    await agent.issue("reports-secret", task_id=task)
    assert errands() == 0


async def test_a_listener_full_of_strangers_leaves_the_other_open(bare_world: World) -> None:
    limits = bare_world.settings.limits.model_copy(update={"max_connections": 4})
    bare_world.settings = bare_world.settings.model_copy(update={"limits": limits})
    await bare_world.start()
    known = bare_world.workload("spiffe://example.test/agents/known")
    async with misdoing("silent", bare_world.app.addresses["bearer"], 20):
        await known.tasks.ListTasks(task_service_pb2.ListTasksRequest())


async def test_whoever_pings_without_end_is_disconnected(world: World) -> None:
    host, _, port = world.app.addresses["bearer"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=strangers.tls())
    writer.write(strangers.greeting())
    ended = asyncio.create_task(strangers.answer(reader, writer))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while not ended.done():
                writer.write(strangers.ping(1))
                await writer.drain()
                await asyncio.sleep(0.01)
        await ended
    writer.transport.abort()
