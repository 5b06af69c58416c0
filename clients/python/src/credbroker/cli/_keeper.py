"""Renewing what a running command holds: its environment cannot be changed any more, a lease can."""

import logging
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from credbroker._client import Credential
from credbroker._errors import Error, Unavailable

_log = logging.getLogger("credbroker")


class Keeper:
    """Renews credentials at half of their life while a ``with`` block lasts.

    Args:
        credentials: Those that cannot be renewed are left alone.
        shortest_pause: Seconds between two rounds, at least.
    """

    def __init__(self, credentials: Iterable[Credential], shortest_pause: float = 1.0) -> None:
        self._credentials = [credential for credential in credentials if credential.renewable]
        self._shortest = shortest_pause
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        if self._credentials:
            threading.Thread(target=self._keep, name="credbroker keeper", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()

    def _keep(self) -> None:
        kept = self._credentials
        while kept and not self._stop.wait(self._pause(kept)):
            kept = [credential for credential in kept if self._renew(credential)]

    def _pause(self, kept: list[Credential]) -> float:
        return max(self._shortest, min(credential.remaining.total_seconds() for credential in kept) / 2)

    def _renew(self, credential: Credential) -> bool:
        """Renew one credential; false when there is no use in trying again."""
        try:
            credential.renew()
        except Unavailable as error:
            _log.warning("%s: not renewed yet: %s", credential.scope, error)
            return True
        except Exception as error:
            if not self._stop.is_set():
                text = str(error) if isinstance(error, Error) else type(error).__name__
                _log.warning("%s: works until %s: %s", credential.scope, _time(credential), text)
            return False
        if credential.expires_at < credential.max_expires_at:
            return True
        _log.warning("%s: works until %s, its maximum", credential.scope, _time(credential))
        return False


def _time(credential: Credential) -> str:
    return f"{credential.expires_at:%Y-%m-%d %H:%M:%S} UTC"
