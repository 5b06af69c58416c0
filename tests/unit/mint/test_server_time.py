"""How far the machine's clock is from Vault's: never more than can be shown."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import SystemClock
from broker.mint.server_time import RESOLUTION, ServerTime

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Hands(SystemClock):
    """A clock whose two hands are moved one by one: the time that passes, and what the wall clock makes of it."""

    def __init__(self) -> None:
        self.passed = timedelta()
        self.wrong_by = timedelta()

    def true_time(self) -> datetime:
        return START + self.passed

    def now(self) -> datetime:
        return self.true_time() + self.wrong_by

    def monotonic(self) -> float:
        return 5000.0 + self.passed.total_seconds()


def header(time: datetime) -> str:
    return format_datetime(time, usegmt=True)


def reply(clock: Hands, server: ServerTime, *, there: float = 0.001, back: float = 0.001) -> None:
    """Let a request and its reply take so many seconds each."""
    asked_at = clock.monotonic()
    clock.passed += timedelta(seconds=there)
    date = header(clock.true_time())
    clock.passed += timedelta(seconds=back)
    server.note(date, asked_at)


def test_before_the_first_reply_nothing_is_known() -> None:
    assert ServerTime(Hands()).difference() is None


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR, timedelta(seconds=31), timedelta(seconds=-31), timedelta(days=9000)])
def test_a_wrong_clock_is_seen_by_the_next_reply(wrong_by: timedelta) -> None:
    clock = Hands()
    server = ServerTime(clock)
    clock.wrong_by = wrong_by
    reply(clock, server)
    found = server.difference()
    assert found is not None
    assert abs(found - wrong_by) < timedelta(seconds=RESOLUTION + 0.002)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_is_seen_at_once_however_long_ago_vault_replied(step: timedelta) -> None:
    clock = Hands()
    server = ServerTime(clock)
    reply(clock, server)
    clock.passed += timedelta(minutes=20)
    assert server.difference() == timedelta()
    clock.wrong_by = step
    found = server.difference()
    assert found is not None
    assert abs(found - step) < timedelta(seconds=RESOLUTION + 0.002)
    clock.wrong_by = timedelta()
    assert server.difference() == timedelta()


@given(
    wrong_by=st.floats(-7200, 7200),
    there=st.floats(0, 60),
    back=st.floats(0, 60),
    second=st.floats(0, 1),
    later=st.floats(0, 3600),
)
def test_neither_latency_nor_rounding_exaggerates(
    wrong_by: float, there: float, back: float, second: float, later: float
) -> None:
    clock = Hands()
    clock.wrong_by = timedelta(seconds=wrong_by)
    clock.passed = timedelta(seconds=second)
    server = ServerTime(clock)
    reply(clock, server, there=there, back=back)
    clock.passed += timedelta(seconds=later)
    found = server.difference()
    assert found is not None
    seconds, slack = found.total_seconds(), 1e-4
    assert abs(seconds) <= abs(wrong_by) + slack
    assert seconds * wrong_by >= 0
    assert abs(seconds - wrong_by) <= there + back + RESOLUTION + slack


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        "now",
        "Thu, 01 Jan 2026 01:00:00 +0100",
        "Thu, 01 Jan 2026 01:00:00",
        "Thu, 31 Feb 2026 01:00:00 GMT",
        "Thu, 01 Jan 2026 25:00:00 GMT",
        "Thu, 01 Foo 2026 01:00:00 GMT",
        "2026-01-01T01:00:00Z",
        "Thu, 01 Jan 2026 01:00:00 GMT" * 1000,
    ],
)
def test_a_header_that_is_no_date_changes_nothing(bad: str | None) -> None:
    clock = Hands()
    server = ServerTime(clock)
    server.note(bad, clock.monotonic())
    assert server.difference() is None
    reply(clock, server)
    server.note(bad, clock.monotonic())
    assert server.difference() == timedelta()


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_the_far_ends_of_the_calendar_are_differences_like_any_other(year: int) -> None:
    clock = Hands()
    server = ServerTime(clock)
    server.note(f"Fri, 31 Dec {year:04} 23:59:59 GMT", clock.monotonic())
    found = server.difference()
    assert found is not None
    assert abs(found) > timedelta(days=365)


def test_a_vault_whose_clock_stands_still_is_noticed() -> None:
    clock = Hands()
    server = ServerTime(clock)
    stuck = header(clock.true_time())
    server.note(stuck, clock.monotonic())
    clock.passed += HOUR
    server.note(stuck, clock.monotonic())
    found = server.difference()
    assert found is not None
    assert found > HOUR - timedelta(seconds=2)
