"""How the broker is, for people: facts, and what of them needs somebody."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from broker.audit import Call
from broker.clock_guard import ClockGuard
from broker.errors import ClockUncertain
from broker.mint.health import VaultHealth, examine
from broker.mint.vault import VaultClient
from broker.model import LeaseRecord, ReplicaRecord, Revocation, Standing
from broker.store import Store, leases, migrate, replicas, unconfirmed
from broker.store.standing import standing

OVERDUE: Final = timedelta(minutes=1)
"""How long Vault may take to confirm before a person should look."""

MOST_OVERDUE: Final = 10
CLOCK_TOLERANCE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs a person: a stable name, what is wrong, and what to do next."""

    reason: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the database says.

    Attributes:
        kind: ``sqlite`` or ``postgresql``.
        migration: The one it is at; empty for none.
        overdue: Revocations that wait for longer than `OVERDUE`, the longest
            waiting first; at most `MOST_OVERDUE`.
        replicas: Those seen of late, the longest running first.
        leases: Work that one replica does for all.
    """

    kind: str
    migration: str
    standing: Standing
    overdue: Sequence[Revocation]
    replicas: Sequence[ReplicaRecord]
    leases: Sequence[LeaseRecord]


@dataclass(frozen=True, slots=True)
class Report:
    """How everything is, as one replica sees it."""

    replica: str
    version: str
    time: datetime
    store: StoreStatus
    newest_migration: str
    vault: VaultHealth
    problems: Sequence[Problem]


class Status:
    """Reports how the broker is.

    Args:
        replica: Name of this replica.
        version: Of its software.
    """

    def __init__(self, store: Store, vault: VaultClient, guard: ClockGuard, replica: str, version: str) -> None:
        self._store = store
        self._vault = vault
        self._guard = guard
        self._replica = replica
        self._version = version

    async def get(self, call: Call) -> Report:
        """Return how everything is now.

        Raises:
            StoreUnavailable: when the database cannot answer.
        """
        found = await self._store.read(lambda conn: _read(conn, call.now))
        vault = await examine(self._vault)
        newest = migrate.head_revision()
        return Report(
            replica=self._replica,
            version=self._version,
            time=call.now,
            store=found,
            newest_migration=newest,
            vault=vault,
            problems=tuple(find_problems(found, newest, vault, self._clock_doubt(), call.now)),
        )

    def _clock_doubt(self) -> str:
        try:
            self._guard.check()
        except ClockUncertain as doubt:
            return doubt.detail
        return ""


def _read(conn: Connection, now: datetime) -> StoreStatus:
    return StoreStatus(
        kind=conn.dialect.name,
        migration=migrate.revision(conn) or "",
        standing=standing(conn, now),
        overdue=unconfirmed.overdue(conn, now - OVERDUE, MOST_OVERDUE),
        replicas=replicas.seen(conn),
        leases=leases.all_leases(conn),
    )


def find_problems(
    store: StoreStatus, newest_migration: str, vault: VaultHealth, clock_doubt: str, now: datetime
) -> Iterator[Problem]:
    """Yield what needs a person, the most urgent first.

    Args:
        store: What the database says.
        newest_migration: The newest that this replica knows.
        vault: How Vault is.
        clock_doubt: Why this replica's clock cannot be trusted; empty when it can.
        now: The moment of the report.
    """
    if vault.problem:
        yield Problem(
            "VAULT_NOT_READY",
            f"Vault cannot be used: {vault.problem}",
            "check that Vault is up, unsealed and reachable, and that the broker may log in; "
            "nothing is issued until then, and what is pending is revoked by itself afterwards",
        )
    # A Vault that does not answer does not tell its time either.
    if clock_doubt and not (vault.problem and vault.clock_difference is None):
        yield Problem(
            "CLOCK_UNCERTAIN",
            f"this replica refuses to issue: {clock_doubt}",
            "set the clock that is wrong, of this replica's machine or of Vault's; "
            "if Vault is behind a proxy, see that it passes the Date of replies on",
        )
    if store.standing.irrevocable_leases:
        count = store.standing.irrevocable_leases
        yield Problem(
            "LEASES_IRREVOCABLE",
            f"Vault seems to have given up revoking {count} lease{'s' if count > 1 else ''}",
            "mend the engine that the last error names; the broker keeps asking until the lease is gone",
        )
    if store.overdue:
        oldest = store.overdue[0]
        seconds = (now - oldest.requested_at) // timedelta(seconds=1)
        error = f"; Vault's last answer: {oldest.last_error}" if oldest.last_error else ""
        yield Problem(
            "REVOCATIONS_OVERDUE",
            f"Vault has not confirmed a revocation for {seconds} seconds{error}",
            "`broker revocations` shows what Vault refuses to take back, and why; the broker keeps asking",
        )
    if store.migration != newest_migration:
        yield Problem(
            "MIGRATION_DIFFERS",
            f"the database is at migration {store.migration or 'none'}, this replica knows {newest_migration}",
            "run the same version everywhere, and `broker db upgrade` with the newest",
        )
    if not clock_doubt and vault.clock_difference is not None and abs(vault.clock_difference) > CLOCK_TOLERANCE:
        yield Problem(
            "CLOCKS_DIFFER",
            f"the clocks of Vault and this replica differ by {abs(vault.clock_difference).total_seconds():.0f} seconds",
            "synchronize both machines' clocks (NTP): beyond vault.max_clock_difference nothing is issued",
        )
