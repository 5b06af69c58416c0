"""Cancelled work of the asynchronous client leaves nothing behind that it could take back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import credbroker
import pytest
from credbroker.aio import AsyncClient
from credbroker.v1 import task_pb2
from credbroker.v1.credential_service_pb2 import IssueCredentialRequest

from tests.contract.client.conftest import LoopThread, TravelClock
from tests.fakes.broker import DEFAULT_TOKEN, FakeBroker, Hold


@pytest.fixture
async def client(broker: FakeBroker, ca_file: Path, travel: TravelClock) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(broker.address, token=DEFAULT_TOKEN, ca_file=ca_file, clock=travel) as client:
        yield client


async def test_a_cancelled_first_ask_is_settled_and_its_task_completed(client: AsyncClient, broker: FakeBroker) -> None:
    held = Hold()
    broker.script("IssueCredential", held)

    async def work() -> None:
        async with client.task("p") as task:
            await task.credential("vault")

    working = asyncio.create_task(work())
    await asyncio.to_thread(held.arrived.wait, 10)
    working.cancel()
    held.release.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert [task.state for task in broker.tasks.values()] == [task_pb2.TASK_STATE_COMPLETED]
    assert broker.live() == []


async def test_a_cancelled_block_is_completed(client: AsyncClient, broker: FakeBroker) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with client.task("p") as task:
            await task.credential("vault")
            inside.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await inside.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert broker.live() == []


async def test_completing_goes_on_when_it_is_cancelled_and_closing_waits_for_it(
    client: AsyncClient, broker: FakeBroker
) -> None:
    held = Hold()
    broker.script("CompleteTask", held)

    async def work() -> None:
        async with client.task("p") as task:
            await task.credential("vault")

    working = asyncio.create_task(work())
    await asyncio.to_thread(held.arrived.wait, 10)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert broker.live()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    held.release.set()
    await closing
    assert broker.live() == []


async def test_completing_may_fail_after_its_caller_was_cancelled(client: AsyncClient, broker: FakeBroker) -> None:
    held = Hold()
    broker.script("CompleteTask", held)
    task = client.task("p")
    await task.credential("vault")
    completing = asyncio.create_task(task.complete())
    await asyncio.to_thread(held.arrived.wait, 10)
    completing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await completing
    broker.tasks.clear()
    held.release.set()
    await client.close()
    assert task.ended
    assert not task.revocation_confirmed


async def test_a_cancelled_replacement_leaves_the_credential_at_hand(
    client: AsyncClient, broker: FakeBroker, travel: TravelClock
) -> None:
    async with client.task("p") as task:
        credential = await task.credential("vault")
        travel.advance(seconds=245)
        held = Hold()
        broker.script("IssueCredential", held)
        replacing = asyncio.create_task(credential.fresh())
        await asyncio.to_thread(held.arrived.wait, 10)
        replacing.cancel()
        held.release.set()
        with pytest.raises(asyncio.CancelledError):
            await replacing
        successor = await credential.fresh()
        assert successor != credential
        assert sorted(broker.live()) == sorted([credential.issuance_id, successor.issuance_id])


async def test_many_at_once_start_one_task(client: AsyncClient, broker: FakeBroker) -> None:
    async with client.task("p") as task:
        found = await asyncio.gather(*(task.credential("vault") for _ in range(20)))
        assert len({credential.token for credential in found}) == 20
        assert len(broker.tasks) == 1
        first = [request for request in broker.requests(IssueCredentialRequest) if request.HasField("new_task")]
        assert len(first) == 1


async def test_one_replaces_while_others_go_on(client: AsyncClient, broker: FakeBroker, travel: TravelClock) -> None:
    async with client.task("p") as task:
        credential = await task.credential("vault")
        travel.advance(seconds=301)
        found = await asyncio.gather(*(credential.fresh() for _ in range(20)))
        assert {item.token for item in found} == {"secret-2"}
        assert broker.count("IssueCredential") == 2


def test_a_client_may_be_made_before_its_loop_runs(broker: FakeBroker, ca_file: Path, loop_thread: LoopThread) -> None:
    client = credbroker.aio.AsyncClient(broker.address, token=DEFAULT_TOKEN, ca_file=ca_file)

    async def work() -> None:
        async with client, client.task("p") as task:
            await task.credential("vault")

    loop_thread.run(work())
    assert broker.count("CompleteTask") == 1
