"""When to try again, and when to stop. No I/O: time and chance come in."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from credbroker._errors import BrokerFailed, Error, LimitReached, Unavailable, Unreachable, Untrusted


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a client is. All in seconds.

    Attributes:
        timeout: For one attempt.
        total_timeout: For an operation with all its attempts and pauses.
        first_pause: Longest pause after the first failed attempt; doubled
            after each further one.
        longest_pause: Where doubling ends.
    """

    timeout: float = 10.0
    total_timeout: float = 30.0
    first_pause: float = 0.1
    longest_pause: float = 5.0


class Attempts:
    """The attempts of one operation, which share one deadline.

    Attributes:
        doubtful: Whether the broker may have acted on an attempt that failed.
    """

    def __init__(
        self, policy: Policy, now: float, *, total: float | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._deadline = now + (policy.total_timeout if total is None else min(total, policy.total_timeout))
        self._chance = chance
        self._failed = 0
        self.doubtful = False

    def timeout(self, now: float) -> float:
        """Return how long the next attempt may take."""
        return max(0.001, min(self._policy.timeout, self._deadline - now))

    def pause(self, error: Error, now: float) -> float | None:
        """Return how long to wait before the next attempt; None to give up.

        Every request of this library can be repeated without harm, hence only
        the kind of failure decides. Backoff is exponential with full jitter,
        on top of the delay that the broker asks for.
        """
        if not may_pass(error):
            return None
        longest = min(self._policy.longest_pause, self._policy.first_pause * 2.0 ** min(self._failed, 30))
        self._failed += 1
        asked = 0.0 if error.retry_after is None else error.retry_after.total_seconds()
        pause = asked + longest * self._chance()
        return pause if now + pause < self._deadline else None


def may_pass(error: Error) -> bool:
    """Whether trying again may help."""
    if isinstance(error, LimitReached):
        return error.retry_after is not None
    return isinstance(error, Unavailable) and not isinstance(error, Untrusted)


def is_doubtful(error: BaseException) -> bool:
    """Whether the broker may have done what was asked although the call failed.

    Certain is only what was never sent, and what the broker refuses; an
    interrupted call may have arrived.
    """
    if isinstance(error, Unreachable):
        return False
    return not isinstance(error, Error) or isinstance(error, Unavailable | BrokerFailed)
