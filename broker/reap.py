"""The reaper: compares Vault's books with the records, both ways, and settles the difference.

A token in Vault that carries this broker's mark and has no living record was
minted by a process that died before it could record it, or its record was
lost with a database: it is revoked. A record of a living token that Vault does
not know was revoked behind the broker's back: its end is recorded.

One replica does it for all.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from broker import revoke
from broker.audit import broker_event
from broker.audit.catalogue import (
    CREDENTIAL_REVOCATION_REQUESTED,
    UNRECORDED_IN_VAULT,
)
from broker.clock import Clock
from broker.lease import Lease, SingleDuty
from broker.mint.reap import FoundToken, look_up_all
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import AnchorRecord
from broker.outbox import Revoker
from broker.store import Store, anchors, events
from broker.store.books import Difference, compare
from broker.store.issuances import Ending
from broker.sweep import ABANDONED
from broker.tasks import requested

LOOK_SECONDS: Final = 2.0
"""How often to look for anchors whose creation was cut off."""

SETTLING_SECONDS: Final = 2.0
"""How old an accessor in Vault's list is, at the least, when its token is looked at.

Vault lists a token before its lease is stored, and whoever looks up a service
token without a lease makes Vault revoke it. OpenBao: vault/token_store.go,
lookupInternal.
"""

RETRY: Final = timedelta(seconds=10)
LOST: Final = "vault.lost"
"""Why a credential ended that Vault turned out not to know any more."""

_BATCH = 500
_ANCHORS_TOGETHER = 10
# Others' tokens in Vault can be any number, and each is looked at once: at a pace
# that leaves Vault to those who wait for it.
_LOOKED_UP_TOGETHER = 100
_PAUSE_SECONDS = 0.2
_ISSUANCES_TOGETHER = 100
"""Most that one transaction puts up for revocation; with an anchor goes all that hangs from it."""

log = structlog.get_logger(__name__)


class Reaper(SingleDuty):
    """Compares.

    Args:
        looker: A Vault client that may list token accessors; None when the
            configuration has no such identity.
        lease: Of this work; without it, nothing is done.
        interval: How often to compare everything.
        installation: What this broker's tokens are marked with.
        in_doubt: Whether the clock cannot be trusted: nothing is given up for its age then.
    """

    def __init__(
        self,
        store: Store,
        vault: VaultClient,
        looker: VaultClient | None,
        revoker: Revoker,
        clock: Clock,
        lease: Lease,
        interval: timedelta,
        installation: str,
        in_doubt: Callable[[], bool],
    ) -> None:
        super().__init__(clock, lease, LOOK_SECONDS)
        self._store = store
        self._vault = vault
        self._looker = looker
        self._revoker = revoker
        self._interval = interval.total_seconds()
        self._installation = installation
        self._in_doubt = in_doubt
        self._foreign: set[str] = set()
        self._compare_at = 0.0

    async def work(self, *, taken_over: bool) -> None:
        """Compare if it is time to, or if something was left half created.

        Raises:
            StoreUnavailable: when the database cannot be reached.
            VaultUnavailable: when Vault did not answer.
            MintFailed: when Vault refused.
            LeaseLost: when another replica took over meanwhile.
        """
        now, ticks = self._clock.now(), self._clock.monotonic()
        if self._in_doubt():
            return
        abandoned = await self._store.read(lambda conn: anchors.creating_before(conn, now - ABANDONED, _BATCH))
        if self._looker is None:
            await self._give_up([record for record in abandoned if record.expires_at <= now], now)
        elif abandoned or taken_over or ticks >= self._compare_at:
            self._compare_at = ticks + min(self._interval, RETRY.total_seconds())
            await self.compare(self._looker, abandoned, now)
            self._compare_at = ticks + self._interval

    async def compare(self, looker: VaultClient, abandoned: Iterable[AnchorRecord], now: datetime) -> None:
        """Compare everything once.

        What Vault lists and is not recorded afterwards either is unrecorded,
        unless it is so young that its record may still be on its way; what is
        recorded and not listed afterwards either is lost.
        """
        differing, own = await self._look(looker)
        intents = {record.id: record for record in abandoned}
        unrecorded = 0
        for token in own:
            intent = intents.pop(token.anchor_id or "", None)
            if intent is not None:
                await self._lease.write(_adopting(intent, token, now))
            elif token.created_at <= now - ABANDONED:
                unrecorded += await self._revoke_unrecorded(token, now)
        await self._give_up(intents.values(), now)
        lost = await self._note_lost(looker, differing, now)
        self._revoker.wake()
        if unrecorded or lost:
            log.warning("Vault's books and the records differed", unrecorded=unrecorded, lost=lost)

    async def _look(self, looker: VaultClient) -> tuple[Difference, Sequence[FoundToken]]:
        """Return where Vault and the records differ, and those of the tokens without a record that are the broker's."""
        listed = frozenset(await looker.list_accessors())
        await self._clock.sleep(SETTLING_SECONDS)
        differing = await self._store.read(lambda conn: compare(conn, listed))
        own: list[FoundToken] = []
        self._foreign &= listed
        for number, part in enumerate(_parts(sorted(differing.unrecorded - self._foreign), _LOOKED_UP_TOGETHER)):
            if number:
                await self._clock.sleep(_PAUSE_SECONDS)
                await self._lease.keep()
            found = await look_up_all(looker, part, self._installation)
            self._foreign |= found.foreign
            own += found.own
        return differing, own

    async def _give_up(self, intents: Iterable[AnchorRecord], now: datetime) -> None:
        """Record that anchors were never made, or are over by now."""
        for record in intents:
            await self._lease.write(_giving_up(record, now))

    async def _revoke_unrecorded(self, token: FoundToken, now: datetime) -> bool:
        if not await retract(self._vault, token.accessor, None):
            return False  # the next comparison finds it again
        event = broker_event(
            UNRECORDED_IN_VAULT,
            now,
            issuance_id=token.issuance_id,
            attributes={"anchor_id": token.anchor_id or "", "created_at": token.created_at.isoformat()},
        )
        await self._lease.write(lambda conn: events.append(conn, [event]))
        return True

    async def _note_lost(self, looker: VaultClient, differing: Difference, now: datetime) -> int:
        if not differing.anchors and not differing.issuances:
            return 0
        # What was not listed at first may have been made since.
        listed = frozenset(await looker.list_accessors())
        lost = 0
        for unlisted, together, queue in (
            (differing.anchors, _ANCHORS_TOGETHER, revoke.queue_anchors),
            (differing.issuances, _ISSUANCES_TOGETHER, revoke.queue_issuances),
        ):
            ids = [identifier for accessor, identifier in unlisted.items() if accessor not in listed]
            for part in _parts(ids, together):
                await self._lease.keep()
                await self._lease.write(_losing(part, queue, now))
            lost += len(ids)
        return lost


def _parts(ids: list[str], size: int) -> Iterable[list[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _losing(
    ids: list[str], queue: Callable[[Connection, Sequence[str], str, datetime], list[Ending]], now: datetime
) -> Callable[[Connection], None]:
    """Put what is lost up for revocation: Vault will confirm that it is gone."""

    def lose(conn: Connection) -> None:
        moved = queue(conn, ids, LOST, now)
        events.append(conn, requested(moved, broker_event(CREDENTIAL_REVOCATION_REQUESTED, now)))

    return lose


def _adopting(intent: AnchorRecord, token: FoundToken, now: datetime) -> Callable[[Connection], None]:
    """Record the anchor that an intent led to, and put it up for revocation: its secret is lost."""

    def adopt(conn: Connection) -> None:
        if anchors.activate(conn, intent.id, token.accessor, intent.expires_at):
            revoke.queue_anchors(conn, [intent.id], "anchor.abandoned", now)

    return adopt


def _giving_up(intent: AnchorRecord, now: datetime) -> Callable[[Connection], None]:
    return lambda conn: revoke.never_made(conn, intent.id, intent.task_id, now)
