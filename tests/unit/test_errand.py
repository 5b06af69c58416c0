"""Seeing work through: the wait ends with the work, not with the patience of whoever waits."""

import asyncio

import pytest

from broker.errand import see_through


async def test_cancelling_the_wait_neither_ends_it_nor_the_work() -> None:
    go_on = asyncio.Event()
    work = asyncio.create_task(go_on.wait())
    waiting = asyncio.create_task(see_through(work))
    for _ in range(3):
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=0.01)
        assert not waiting.done()
    go_on.set()
    await waiting
    assert work.result() is True


async def test_what_the_work_ends_in_is_its_own() -> None:
    async def fail() -> None:
        raise ValueError("x")

    for work in (asyncio.create_task(fail()), asyncio.create_task(asyncio.Event().wait())):
        work.get_loop().call_soon(work.cancel)
        await see_through(work)
        with pytest.raises((ValueError, asyncio.CancelledError)):
            await work
