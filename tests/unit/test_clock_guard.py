"""When the clock is in doubt, and for how long."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from broker.clock_guard import SETTLING, ClockGuard
from broker.errors import ClockUncertain
from tests.fixtures.clock import FakeClock

MOST = timedelta(seconds=30)
BEYOND = timedelta(seconds=30, milliseconds=1)


class Doubted:
    """A guard, and the difference that it is told."""

    def __init__(self, clock: FakeClock) -> None:
        self.difference: timedelta | None = timedelta()
        self.guard = ClockGuard(lambda: self.difference, MOST, clock)


@pytest.fixture
def doubted(clock: FakeClock) -> Doubted:
    return Doubted(clock)


@pytest.mark.parametrize("difference", [timedelta(), MOST, -MOST])
def test_a_small_difference_is_no_doubt(doubted: Doubted, difference: timedelta) -> None:
    doubted.difference = difference
    doubted.guard.check()
    assert not doubted.guard.in_doubt()
    assert doubted.guard.difference == difference


@pytest.mark.parametrize("difference", [BEYOND, -BEYOND, timedelta(days=9000), None])
def test_a_larger_one_and_an_unknown_one_are(doubted: Doubted, difference: timedelta | None) -> None:
    doubted.difference = difference
    assert doubted.guard.in_doubt()
    with pytest.raises(ClockUncertain) as caught:
        doubted.guard.check()
    assert caught.value.reason == "CLOCK_UNCERTAIN"
    assert caught.value.retry_after is not None
    assert caught.value.message != caught.value.detail


def test_after_a_doubt_requests_go_on_and_what_time_ends_waits_for_heartbeats(
    doubted: Doubted, clock: FakeClock
) -> None:
    doubted.difference = BEYOND
    assert doubted.guard.in_doubt()
    doubted.difference = timedelta()
    doubted.guard.check()
    assert doubted.guard.in_doubt()
    clock.advance(SETTLING - 1)
    assert doubted.guard.in_doubt()
    clock.advance(1)
    assert not doubted.guard.in_doubt()


def test_not_having_known_the_time_needs_no_settling(doubted: Doubted) -> None:
    doubted.difference = None
    assert doubted.guard.in_doubt()
    doubted.difference = timedelta()
    assert not doubted.guard.in_doubt()


def test_each_change_is_logged_once(doubted: Doubted) -> None:
    with capture_logs() as lines:
        for difference in (timedelta(), BEYOND, BEYOND, -BEYOND, timedelta(), timedelta(), BEYOND):
            doubted.difference = difference
            doubted.guard.in_doubt()
    assert [line["event"].split(",")[0] for line in lines] == [
        "the broker's clock and Vault's differ",
        "the broker's clock and Vault's agree again",
        "the broker's clock and Vault's differ",
    ]
