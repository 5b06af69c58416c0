"""When to try again: decided without waiting."""

from datetime import timedelta

import credbroker
import pytest
from credbroker._retry import Attempts, Policy, is_doubtful, may_pass
from hypothesis import given
from hypothesis import strategies as st

POLICY = Policy(timeout=10, total_timeout=30, first_pause=0.1, longest_pause=5)
AWAY = credbroker.Unavailable("away")


def attempts(chance: float = 1.0, total: float | None = None) -> Attempts:
    return Attempts(POLICY, 100.0, total=total, chance=lambda: chance)


def test_pauses_double_up_to_the_longest() -> None:
    tries = attempts()
    assert [tries.pause(AWAY, 100.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_chance_decides_between_nothing_and_the_whole_pause() -> None:
    assert attempts(0.0).pause(AWAY, 100.0) == 0.0
    assert attempts(0.5).pause(AWAY, 100.0) == 0.05


def test_the_brokers_delay_comes_on_top() -> None:
    error = credbroker.LimitReached("full", retry_after=timedelta(seconds=7))
    assert attempts(1.0).pause(error, 100.0) == pytest.approx(7.1)
    assert attempts(1.0).pause(credbroker.LimitReached("full"), 100.0) is None


@pytest.mark.parametrize(("now", "pause"), [(129.89, 0.1), (129.9, None), (131.0, None)])
def test_no_pause_reaches_past_the_deadline(now: float, pause: float | None) -> None:
    assert attempts().pause(AWAY, now) == pause


@pytest.mark.parametrize(("total", "now", "timeout"), [(None, 100, 10), (None, 125, 5), (3, 100, 3), (99, 121, 9)])
def test_an_attempt_gets_its_time_within_the_total(total: float | None, now: float, timeout: float) -> None:
    assert attempts(total=total).timeout(now) == timeout


def test_an_attempt_gets_a_moment_even_when_the_time_is_up() -> None:
    assert attempts().timeout(200.0) == 0.001


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_pauses_stay_within_bounds(chance: float, failures: int) -> None:
    tries = attempts(chance)
    for _ in range(failures):
        pause = tries.pause(AWAY, 100.0)
    assert pause is not None
    assert 0 <= pause <= POLICY.longest_pause


@pytest.mark.parametrize(
    ("error", "again", "doubtful"),
    [
        (credbroker.Unavailable("m"), True, True),
        (credbroker.TimedOut("m"), True, True),
        (credbroker.VaultUnavailable("m"), True, True),
        (credbroker.Unreachable("m"), True, False),
        (credbroker.Untrusted("m"), False, False),
        (credbroker.BrokerFailed("m"), False, True),
        (credbroker.MintFailed("m"), False, True),
        (credbroker.LimitReached("m"), False, False),
        (credbroker.LimitReached("m", retry_after=timedelta(0)), True, False),
        (credbroker.ScopeDenied("m"), False, False),
        (credbroker.EvidenceReplayed("m"), False, False),
        (credbroker.Misconfigured("m"), False, False),
    ],
)
def test_what_each_failure_means(error: credbroker.Error, again: bool, doubtful: bool) -> None:
    assert may_pass(error) is again
    assert is_doubtful(error) is doubtful


def test_an_interruption_is_doubtful() -> None:
    assert is_doubtful(KeyboardInterrupt())
