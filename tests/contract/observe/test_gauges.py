"""Counting in the background: what is shown is fresh, and a database that is away stops nothing."""

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

import pytest
from sqlalchemy import Connection

from broker import gauges, metrics
from broker.errors import StoreUnavailable
from broker.gauges import COUNT_INTERVAL, INTERVAL, Gauges
from broker.metrics import Reading
from broker.store import Store, tasks
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import a_task
from tests.fixtures.scraping import labelled, samples
from tests.fixtures.waiting import until

T = TypeVar("T")


class Away:
    """A database that does not answer, or fails, as the test says; it counts how often it is asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    async def read(self, work: Callable[[Connection], T]) -> T:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        raise AssertionError


def shown(name: str) -> float:
    return samples(metrics.render().decode())[f"credbroker_{name}", labelled()]


def reading(requests: int = 0) -> Reading:
    return Reading(True, requests, {}, 0, 0, 60.0, None, {})


async def test_the_database_is_counted_once_in_a_while_and_this_process_at_every_turn(
    store: Store, clock: FakeClock
) -> None:
    requests = iter(range(1, 10))
    counting = Gauges(store, clock, lambda: reading(next(requests)))

    await counting.turn()
    assert (shown("active_tasks"), shown("requests_in_progress")) == (0, 1)
    assert shown("standing_timestamp_seconds") == clock.now().timestamp()

    await store.write(lambda conn: tasks.insert(conn, a_task()))
    await counting.turn()
    assert (shown("active_tasks"), shown("requests_in_progress")) == (0, 2)
    clock.advance(COUNT_INTERVAL)
    await counting.turn()
    assert (shown("active_tasks"), shown("requests_in_progress")) == (1, 3)


async def test_a_database_that_fails_or_hangs_stops_nothing(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "PATIENCE", 0.05)
    away = Away()
    counting = Gauges(cast("Store", away), clock, reading)
    running = counting.start()
    try:
        for error in (None, StoreUnavailable("away"), ValueError("a mistake"), None):
            away.error = error
            away.asked = 0
            clock.advance(COUNT_INTERVAL)
            await until(lambda: away.asked == 1 and clock.sleepers == 1)
        assert not running.done()
        clock.advance(INTERVAL)
        await until(lambda: clock.sleepers == 1)
        assert away.asked == 1
    finally:
        await counting.stop()
