"""Taking back what is out, as admins ask for it, and what of that Vault has yet to confirm."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from broker.audit import Call
from broker.audit.catalogue import REVOCATION_ORDERED
from broker.clock import Clock
from broker.confirmation import wait_confirmed
from broker.errand import see_through
from broker.ids import new_id
from broker.model import AuditEvent, JsonValue, Page, Revocation, Selection
from broker.outbox import Revoker
from broker.revoke import queue_selection
from broker.step import Step, step
from broker.store import Store, events, unconfirmed
from broker.store.issuances import Ending
from broker.store.paging import PageOf
from broker.store.selections import Extent, extent
from broker.tasks import requested

CHUNK: Final = 500
"""Most issuances that one transaction selects: the others' commits wait for it."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What one revocation did.

    Attributes:
        id: Its identifier, which the record of what it ended names.
        extent: What was found when it began.
        matching: Issuances that were selected and put up for revocation.
        siblings: Those that had to go with them.
        pending: Those of both that Vault has not confirmed to be gone yet.
    """

    id: str
    extent: Extent
    matching: int
    siblings: int
    pending: int


class Takeback:
    """What operators do with revocations.

    Args:
        wait: How long a revocation waits for Vault's confirmation.
    """

    def __init__(self, store: Store, revoker: Revoker, clock: Clock, wait: timedelta) -> None:
        self._store = store
        self._revoker = revoker
        self._clock = clock
        self._wait = wait
        self._running: set[asyncio.Task[Revoked]] = set()

    async def pending(self, call: Call, page: Page) -> PageOf[Revocation]:
        """Return a page of what Vault has not confirmed to be gone yet, the longest waiting first."""
        return await self._store.read(lambda conn: unconfirmed.page(conn, page))

    async def count(self, call: Call, wanted: Selection) -> Extent:
        """Return how much would be taken back."""
        return await step(Step.TAKEBACK_COUNT, self._store.read(lambda conn: extent(conn, wanted)))

    async def revoke(self, call: Call, wanted: Selection, reason: str) -> Revoked:
        """Take back what is selected, and wait a while for Vault's confirmation.

        Nothing is refused from then on. What was begun goes on when its caller
        goes away.
        """
        work = asyncio.create_task(self._revoke(call, wanted, reason), name="take back")
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await see_through(work)
            raise

    async def drain(self) -> None:
        """Wait for what goes on without its caller."""
        if self._running:
            await asyncio.wait(self._running)

    async def _revoke(self, call: Call, wanted: Selection, reason: str) -> Revoked:
        order = new_id()
        cause = call.event(REVOCATION_ORDERED, reason=f"revocation {order}", attributes=_facts(order, wanted, reason))
        found, moved = await step(Step.TAKEBACK_ORDER, self._store.write(lambda conn: _order(conn, wanted, cause)))
        part = moved
        while part:
            self._revoker.wake()
            part = await step(Step.TAKEBACK_REVOKE, self._store.write(lambda conn: _take(conn, wanted, cause)))
            moved = [*moved, *part]
        ids = [issuance.id for issuance in moved]
        pending = await step(Step.TAKEBACK_WAIT, wait_confirmed(self._store, self._clock, ids, self._wait))
        matching = sum(_matches(issuance, wanted) for issuance in moved)
        return Revoked(order, found, matching=matching, siblings=len(moved) - matching, pending=pending)


def _order(conn: Connection, wanted: Selection, cause: AuditEvent) -> tuple[Extent, list[Ending]]:
    """Record what is ordered with what there is of it, and take back a first part."""
    found = extent(conn, wanted)
    counts = {"matching": found.matching, "siblings": found.siblings, "expiring": found.expiring}
    events.append(conn, [replace(cause, attributes={**cause.attributes, **counts})])
    return found, _take(conn, wanted, cause)


def _take(conn: Connection, wanted: Selection, cause: AuditEvent) -> list[Ending]:
    moved = queue_selection(conn, wanted, cause.reason, cause.time, CHUNK)
    events.append(conn, requested(moved, cause))
    return moved


def _matches(issuance: Ending, wanted: Selection) -> bool:
    return all(getattr(issuance, name) == value for name, value in wanted.given().items())


def _facts(order: str, wanted: Selection, reason: str) -> dict[str, JsonValue]:
    selected = {("issuance_id" if name == "id" else name): value for name, value in wanted.given().items()}
    return {"revocation_id": order, "reason": reason, **selected}
