"""Taking back what was minted and will not be handed out.

Nothing here raises for Vault or the database being away: whoever calls is on
the way out with an error already. What cannot be done now is left to the
sweeper, to the anchor that everything hangs from, and to its time to live. No
deadline of a request bounds it.
"""

import contextlib
from typing import Final

import structlog
from sqlalchemy import Connection

from broker import deadline, revoke
from broker.anchors import Anchors
from broker.clock import Clock
from broker.errors import BrokerError
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Anchor, Issuance, Revocability
from broker.outbox import Revoker
from broker.step import Step, step
from broker.store import Store, issuances

RECORD_FAILED: Final = "record.failed"

log = structlog.get_logger(__name__)


class Undo:
    """Takes back."""

    def __init__(self, store: Store, vault: VaultClient, anchors: Anchors, revoker: Revoker, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._anchors = anchors
        self._revoker = revoker
        self._clock = clock

    async def token(self, accessor: str, lease_id: str | None = None) -> None:
        """Ask Vault at once to revoke a token that may have no record."""
        with contextlib.suppress(BrokerError), deadline.lifted():
            await step(Step.UNDO_RETRACT, retract(self._vault, accessor, lease_id))

    async def anchor(self, anchor: Anchor, reason: str) -> None:
        """Revoke an anchor with all that hangs from it."""
        try:
            with deadline.lifted():
                await self._anchors.retire(anchor, reason)
        except Exception as failure:
            log.error("the end of an anchor cannot be recorded", anchor=anchor.id, exc_info=failure)
        self._revoker.wake()

    async def unrecorded(self, anchor: Anchor, issuance: Issuance) -> None:
        """Revoke what could not be recorded, with its anchor where there is no other way.

        The database may have kept the record and failed to say so; then its
        end is recorded as well, and the request can be made again.
        """
        now = self._clock.now()
        if issuance.accessor is None:
            await self.anchor(anchor, RECORD_FAILED)
        else:
            await self.token(issuance.accessor, issuance.lease_id)

        def end(conn: Connection) -> None:
            issuances.release_request(conn, issuance.id)
            if issuance.accessor is not None:
                revoke.queue_issuance(conn, issuance, RECORD_FAILED, now)

        with contextlib.suppress(BrokerError), deadline.lifted():
            await step(Step.UNDO_QUEUE, self._store.write(end))
        self._revoker.wake()

    async def perhaps_made(self, anchor: Anchor, revocability: Revocability) -> None:
        """Revoke what Vault may have made without saying so.

        A batch token leaves nothing behind in Vault and its secret is lost with
        the reply, so that it alone is no reason to take the anchor.
        """
        if revocability is Revocability.INDIVIDUAL:
            await self.anchor(anchor, "mint.uncertain")

    async def undelivered(self, issuance: Issuance) -> None:
        """Revoke a recorded credential whose caller has gone away, where it can be revoked by itself."""
        if issuance.revocability is Revocability.INDIVIDUAL:
            now = self._clock.now()
            with contextlib.suppress(BrokerError), deadline.lifted():
                await step(
                    Step.UNDO_QUEUE,
                    self._store.write(lambda conn: revoke.queue_issuance(conn, issuance, "caller.gone", now)),
                )
            self._revoker.wake()
