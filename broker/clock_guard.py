"""In doubt about the clock: refuse, and let nothing end by time.

The broker's clock decides which evidence has expired and which task is over,
and Vault's clock decides what really works. While the two differ by more than
is allowed, at least one of them is wrong, and neither is believed.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from broker.clock import Clock
from broker.errors import ClockUncertain

SETTLING: Final = 60.0
"""Seconds after a doubt in which agents catch up with the heartbeats that were refused meanwhile."""

_RETRY_AFTER = timedelta(seconds=5)

log = structlog.get_logger(__name__)


class ClockGuard:
    """Says whether the clock can be trusted.

    Args:
        difference: Returns how far the broker's clock is ahead of Vault's; None
            while that is not known, which is a doubt as well.
        most: The largest difference that is none, either way.
        clock: Its monotonic side alone counts.
    """

    def __init__(self, difference: Callable[[], timedelta | None], most: timedelta, clock: Clock) -> None:
        self._difference = difference
        self._most = most
        self._clock = clock
        self._doubted = False
        self._settled_at = float("-inf")

    @property
    def difference(self) -> timedelta | None:
        """How far the broker's clock is ahead of Vault's, at the least; None while that is not known."""
        return self._difference()

    def check(self) -> None:
        """Check that the clock can be trusted now.

        Raises:
            ClockUncertain: when it cannot; says why.
        """
        problem = self._problem()
        if problem is not None:
            raise ClockUncertain(problem, retry_after=_RETRY_AFTER)

    def in_doubt(self) -> bool:
        """Return whether nothing may be ended by time: in a doubt, and a little longer."""
        return self._problem() is not None or self._clock.monotonic() < self._settled_at

    def _problem(self) -> str | None:
        difference = self._difference()
        if difference is None:
            return "Vault has not told its time yet"
        doubted, self._doubted = self._doubted, abs(difference) > self._most
        if self._doubted:
            if not doubted:
                log.warning("the broker's clock and Vault's differ, nothing is issued", ahead=_seconds(difference))
            return (
                f"the broker's clock is {_seconds(difference)} s ahead of Vault's; {_seconds(self._most)} are allowed"
            )
        if doubted:
            self._settled_at = self._clock.monotonic() + SETTLING
            log.warning("the broker's clock and Vault's agree again", ahead=_seconds(difference))
        return None


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.3f}"
