"""The gate: so many and no more, and one knows when it is empty."""

import asyncio

import pytest

from broker.errors import Overloaded
from broker.serve.gate import RETRY_AFTER, Gate


def test_more_than_the_limit_are_turned_away() -> None:
    gate = Gate(2)
    with gate, gate:
        with pytest.raises(Overloaded) as caught, gate:
            pytest.fail("a third one entered")
        assert caught.value.retry_after == RETRY_AFTER
        assert gate.inside == 2
    with gate:
        assert gate.inside == 1


def test_whoever_fails_leaves_too() -> None:
    gate = Gate(1)
    with pytest.raises(ValueError, match="x"), gate:
        raise ValueError("x")
    assert gate.inside == 0


async def test_empty_waits_for_the_last_one() -> None:
    gate = Gate(2)
    await gate.empty()
    with gate:
        with gate:
            waiting = asyncio.create_task(gate.empty())
            await asyncio.wait([waiting], timeout=0)
        await asyncio.wait([waiting], timeout=0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)
