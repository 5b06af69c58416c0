"""A request's deadline: it bounds its own task, is handed over by name only, and never bounds taking back."""

import asyncio
from datetime import timedelta

import pytest

from broker import deadline
from broker.errors import DeadlineExceeded

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


async def left() -> float | None:
    return deadline.remaining()


async def test_without_one_nothing_is_bounded() -> None:
    assert (deadline.ends_at(), deadline.remaining()) == (None, None)
    deadline.require(HOUR)
    with deadline.until(None):
        assert deadline.ends_at() is None


async def test_time_runs_out_within_the_block_alone() -> None:
    with deadline.within(MINUTE):
        assert 59 < (deadline.remaining() or 0) <= 60
    assert deadline.remaining() is None


@pytest.mark.parametrize("times", [(MINUTE, HOUR), (HOUR, MINUTE)])
async def test_the_earlier_of_two_counts(times: tuple[timedelta, timedelta]) -> None:
    outer, inner = times
    with deadline.within(outer), deadline.within(inner):
        assert 59 < (deadline.remaining() or 0) <= 60
        with deadline.until(None):
            assert 59 < (deadline.remaining() or 0) <= 60


async def test_lifted_within_the_block_alone() -> None:
    with deadline.within(timedelta(0)):
        with deadline.lifted():
            assert deadline.ends_at() is None
            deadline.require(HOUR)
            with deadline.within(MINUTE):
                assert deadline.remaining()
        assert deadline.remaining() == 0
        with deadline.lifted(when=False):
            assert deadline.remaining() == 0


async def test_what_is_started_from_a_request_is_not_bounded_by_it() -> None:
    with deadline.within(MINUTE):
        assert await asyncio.create_task(left()) is None
        assert await left() is not None


async def test_what_is_handed_over_is_bounded_wherever_it_runs() -> None:
    with deadline.within(MINUTE):
        work = deadline.kept(left())
        bounded = asyncio.create_task(work)
    assert 59 < (await bounded or 0) <= 60
    assert await asyncio.create_task(deadline.kept(left())) is None


async def test_too_little_time_is_refused() -> None:
    with deadline.within(timedelta(seconds=1)):
        deadline.require(timedelta(milliseconds=1))
        with pytest.raises(DeadlineExceeded, match="too few to begin"):
            deadline.require(timedelta(seconds=1))
    with deadline.within(timedelta(0)), pytest.raises(DeadlineExceeded):
        deadline.require(timedelta(0))


async def test_a_moment_passes() -> None:
    assert not deadline.has_passed(None)
    with deadline.within(timedelta(0)):
        assert deadline.has_passed(deadline.ends_at())
    with deadline.within(MINUTE):
        assert not deadline.has_passed(deadline.ends_at())


async def test_a_wait_that_takes_too_long_ends() -> None:
    with pytest.raises(TimeoutError), deadline.limited(0):
        await asyncio.Event().wait()
    assert running().cancelling() == 0


async def test_a_wait_that_ends_in_time_is_left_alone() -> None:
    with deadline.limited(0):
        pass
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(KeyError), deadline.limited(60):
        raise KeyError


async def test_the_inner_of_two_limits_ends_its_own_block_alone() -> None:
    with deadline.limited(60):
        with pytest.raises(TimeoutError), deadline.limited(0):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0, 60])
async def test_who_is_cancelled_learns_that_whether_or_not_the_time_is_over_too(seconds: float) -> None:
    async def work() -> None:
        with deadline.limited(seconds):
            asyncio.get_running_loop().call_soon(running().cancel)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_what_no_task_does_cannot_be_bounded() -> None:
    raised: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            with deadline.limited(60):
                raised.set_result(None)
        except RuntimeError as error:
            raised.set_exception(error)

    asyncio.get_running_loop().call_soon(call)
    with pytest.raises(RuntimeError, match="only what a task does"):
        await raised


def running() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
