"""Waiting, for a while, until Vault has confirmed that credentials are gone."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from broker.clock import Clock
from broker.errors import BrokerError
from broker.store import Store, issuances

_LOOK_SECONDS: Final = 0.05
_AT_ONCE: Final = 500


async def wait_confirmed(store: Store, clock: Clock, ids: Sequence[str], wait: timedelta) -> int:
    """Wait until Vault has confirmed what was put up for revocation, no longer than `wait`.

    Args:
        store: Where the confirmations are recorded.
        clock: For the pauses between looking.
        ids: The issuances.
        wait: The longest wait.

    Returns:
        How many are not known to be confirmed.
    """
    left = list(ids)
    with contextlib.suppress(TimeoutError, BrokerError):
        async with asyncio.timeout(wait.total_seconds()):
            while left:
                pending = await _pending(store, left[:_AT_ONCE])
                left = pending + left[_AT_ONCE:]
                if pending:
                    await clock.sleep(_LOOK_SECONDS)
    counted = 0
    while left:
        chunk, left = left[:_AT_ONCE], left[_AT_ONCE:]
        try:
            counted += len(await _pending(store, chunk))
        except BrokerError:
            return counted + len(chunk) + len(left)
    return counted


async def _pending(store: Store, ids: list[str]) -> list[str]:
    return await store.read(lambda conn: issuances.revoking(conn, ids))
