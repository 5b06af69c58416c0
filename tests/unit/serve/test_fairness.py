"""Whose turn it is: identities take turns, nobody's line grows without end, and whoever goes leaves at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from broker import deadline
from broker.errors import Overloaded
from broker.serve.fairness import RETRY_AFTER, FairQueue, Place


class Requests:
    """Requests that run until they are told to end, in the order in which they came to run."""

    def __init__(self, queue: FairQueue) -> None:
        self.ran: list[str] = []
        self._queue = queue
        self._running: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def send(self, *names: str) -> list[asyncio.Task[None]]:
        """Send requests, each named for its identity and a number: ``a1``."""
        sent = [asyncio.create_task(self._request(name)) for name in names]
        self._tasks += sent
        await settle()
        return sent

    async def finish(self) -> None:
        """End the request that has run the longest."""
        self._running.pop(0).set()
        await settle()

    async def finish_all(self) -> None:
        while self._running:
            await self.finish()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _request(self, name: str) -> None:
        with self._queue.admit(name[0]) as place:
            await place.wait_for_turn()
            self.ran.append(name)
            ending = asyncio.Event()
            self._running.append(ending)
            await ending.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def queueing(running: int, waiting: int = 100, of_one: int = 100) -> AsyncIterator[tuple[FairQueue, Requests]]:
    queue = FairQueue(running=running, waiting=waiting, waiting_per_identity=of_one)
    requests = Requests(queue)
    yield queue, requests
    await requests.stop()
    assert (queue.running, queue.waiting) == (0, 0)


async def test_so_many_run_and_the_others_in_the_order_of_arrival() -> None:
    async with queueing(2) as (queue, requests):
        await requests.send("a1", "a2", "a3", "a4")
        assert (requests.ran, queue.running, queue.waiting) == (["a1", "a2"], 2, 2)
        await requests.finish()
        assert requests.ran == ["a1", "a2", "a3"]
        await requests.finish_all()
        assert requests.ran == ["a1", "a2", "a3", "a4"]


async def test_identities_take_turns_however_long_the_line_of_one() -> None:
    async with queueing(1) as (_, requests):
        await requests.send(*(f"a{number}" for number in range(50)))
        await requests.send("b1", "b2", "c1")
        await requests.finish_all()
        assert requests.ran[:7] == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]
        assert len(requests.ran) == 53


async def test_one_identity_does_not_wait_without_bound() -> None:
    async with queueing(1, of_one=2) as (_, requests):
        sent = await requests.send("a1", "a2", "a3", "a4", "b1")
        with pytest.raises(Overloaded, match="2 requests of a wait") as caught:
            await sent[3]
        assert caught.value.retry_after == RETRY_AFTER
        await requests.finish()
        await requests.send("a5")
        await requests.finish_all()
        assert requests.ran == ["a1", "a2", "b1", "a3", "a5"]


async def test_what_is_admitted_counts_before_it_waits_for_its_turn() -> None:
    queue = FairQueue(running=9, waiting=9, waiting_per_identity=1)
    with queue.admit("a"):
        assert queue.waiting == 1
        with pytest.raises(Overloaded):
            queue.admit("a")
    with queue.admit("a"):
        pass
    assert queue.waiting == 0


async def test_the_longest_line_gives_way_to_a_shorter_one() -> None:
    async with queueing(1, waiting=4) as (queue, requests):
        sent = await requests.send("a0", "a1", "a2", "a3", "a4")
        assert queue.waiting == 4
        await requests.send("b1")
        with pytest.raises(Overloaded, match="shorter lines"):
            await sent[4]
        assert queue.waiting == 4
        await requests.finish_all()
        assert requests.ran == ["a0", "a1", "b1", "a2", "a3"]


async def test_nobody_gives_way_to_an_equal() -> None:
    async with queueing(1, waiting=2) as (_, requests):
        *_, last = await requests.send("a0", "a1", "b1", "c1")
        with pytest.raises(Overloaded, match="2 requests wait"):
            await last
        await requests.finish_all()
        assert requests.ran == ["a0", "a1", "b1"]


async def test_whoever_is_cancelled_leaves_the_line_at_once() -> None:
    async with queueing(1, of_one=1) as (queue, requests):
        _, waiting = await requests.send("a1", "a2")
        waiting.cancel()
        await settle()
        assert queue.waiting == 0
        await requests.send("a3")
        await requests.finish_all()
        assert requests.ran == ["a1", "a3"]


async def test_whoever_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    async with queueing(1) as (_, requests):
        _, second, _ = await requests.send("a1", "a2", "a3")
        requests._running.pop(0).set()
        await asyncio.sleep(0)  # a1 leaves; a2 has its turn and does not know it yet
        second.cancel()
        await settle()
        assert requests.ran == ["a1", "a3"]


async def test_whoever_waits_beyond_its_deadline_is_turned_away() -> None:
    async with queueing(1) as (queue, requests):
        await requests.send("a1")
        with deadline.within(timedelta(milliseconds=10)), pytest.raises(Overloaded, match="deadline"):  # noqa: SIM117
            with queue.admit("b") as place:
                await place.wait_for_turn()
        assert queue.waiting == 0
        await requests.send("c1")
        await requests.finish_all()
        assert requests.ran == ["a1", "c1"]


async def test_whoever_fails_leaves_too() -> None:
    queue = FairQueue(running=1, waiting=1, waiting_per_identity=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            await failing(queue.admit("a"))
    assert (queue.running, queue.waiting) == (0, 0)


async def failing(admitted: Place) -> None:
    with admitted as place:
        await place.wait_for_turn()
        raise ValueError("x")
