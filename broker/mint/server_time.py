"""What Vault's clock says, read from the ``Date`` of its replies.

The header has whole seconds and names the moment at which the reply was made
(RFC 9110, section 6.6.1). From one reply to the next the monotonic clock
carries the time on, so that a step of this machine's clock shows at once.
"""

import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from broker.clock import Clock

RESOLUTION: Final = 1.0

_IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


class ServerTime:
    """Estimates how far this machine's clock is from Vault's.

    A reply was made between sending the request and receiving the answer, so
    that Vault's time is known up to that interval and the header's resolution.
    The estimate is the smallest difference that they allow: neither a slow
    network nor rounding can look like a clock that is wrong.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._header: str | None = None
        self._date = 0.0
        # Seconds by which Vault's time is ahead of the monotonic clock, at least and at most.
        self._ahead: tuple[float, float] | None = None

    def note(self, header: str | None, asked_at: float) -> None:
        """Take note of a reply that has just arrived; one without a usable date changes nothing.

        Args:
            header: Its ``Date``.
            asked_at: When the request was sent, on the monotonic clock.
        """
        if header is None or (header != self._header and not self._parse(header)):
            return
        self._ahead = self._date - self._clock.monotonic(), self._date + RESOLUTION - asked_at

    def difference(self) -> timedelta | None:
        """Return how far this machine's clock is ahead of Vault's, at the least; None while Vault's is not known."""
        if self._ahead is None:
            return None
        ahead = self._clock.now().timestamp() - self._clock.monotonic()
        least, most = self._ahead
        return timedelta(seconds=max(ahead - most, 0.0) or min(ahead - least, 0.0))

    def _parse(self, header: str) -> bool:
        if _IMF_FIXDATE.fullmatch(header) is None:
            return False
        try:
            self._date = parsedate_to_datetime(header).timestamp()
        except ValueError:
            return False
        self._header = header
        return True
