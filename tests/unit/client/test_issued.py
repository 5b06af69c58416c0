"""How long a credential lives by the local clock."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from credbroker import SystemClock
from credbroker._issued import term
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.clock import FakeClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@given(st.floats(1, 1e6), st.floats(0, 1), st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_a_life_is_counted_from_when_it_was_asked_for(life: float, chance: float, skew: timedelta) -> None:
    began = NOON + skew
    found = term(50.0, began, began + timedelta(seconds=life), began, FakeClock(), lambda: chance)
    assert abs(found.end - (50.0 + life)) < 1e-5
    left = (found.end - found.refresh_at) / life
    assert 1 / 5 - 1e-9 <= left <= 1 / 3 + 1e-9


def test_without_the_brokers_time_the_local_wall_clock_stands_in() -> None:
    clock = FakeClock()
    found = term(50.0, None, clock.now() + timedelta(seconds=60), clock.now(), clock)
    assert found.end == clock.monotonic() + 60


def test_the_system_clock() -> None:
    clock = SystemClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    first = clock.monotonic()
    assert first <= clock.monotonic()


def test_the_system_clock_where_there_is_none_that_counts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert abs(SystemClock().monotonic() - time.monotonic()) < 60
