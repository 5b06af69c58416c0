"""The rules in force, as one snapshot that every decision is made under.

Each change of a scope or a lock raises one number in the database. A decision
reads it, and the transaction that records what was decided pins it: when it
has moved, the decision is made again. So a lock or a narrowed scope refuses
exactly from its own commit on, on every replica, without any broadcast.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from broker.authorize import CompiledScope
from broker.errors import Overloaded, ScopeDocumentInvalid
from broker.model import Lock, ScopeRecord
from broker.store import locks, policy, scopes

T = TypeVar("T")

_ATTEMPTS = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What was in force at one revision.

    Attributes:
        revision: The number that names this state.
        scopes: Current scopes by name; one that cannot be compiled is not
            found, hence refused.
        locks: Locks that were not lifted; some may have expired meanwhile.
    """

    revision: int
    scopes: Mapping[str, CompiledScope]
    locks: tuple[Lock, ...]


class PolicyChanged(Exception):
    """The rules changed between the decision and its record; decide again."""


class PolicyCache:
    """Keeps the newest snapshot, and compiles only what is new in it.

    Args:
        compile: Compiles one stored scope.
    """

    def __init__(self, compile: Callable[[ScopeRecord], CompiledScope]) -> None:  # noqa: A002 - the stage's word
        self._compile = compile
        self._policy = Policy(revision=-1, scopes={}, locks=())

    @property
    def latest(self) -> Policy | None:
        """The newest snapshot that was read; the rules may have changed since. None before the first."""
        return self._policy if self._policy.revision >= 0 else None

    def read(self, conn: Connection, now: datetime) -> Policy:
        """Return the snapshot in force in this read transaction."""
        revision = policy.revision(conn)
        known = self._policy
        if known.revision == revision:
            return known
        current = _Scopes(scopes.current(conn), known.scopes, self._compile)
        fresh = Policy(revision=revision, scopes=current, locks=tuple(locks.in_force(conn, now)))
        self._policy = fresh
        return fresh


class _Scopes(Mapping[str, CompiledScope]):
    """Current scopes by name, each compiled when it is first asked for.

    That takes 3 ms: for ten thousand scopes at once, the first decision would
    wait for half a minute.

    Args:
        records: All current scopes.
        before: What was current before; what of it is so still is not compiled again.
        compile: Compiles one.
    """

    def __init__(
        self,
        records: Iterable[ScopeRecord],
        before: Mapping[str, CompiledScope],
        compile: Callable[[ScopeRecord], CompiledScope],  # noqa: A002 - the stage's word
    ) -> None:
        self._records = {record.name: record for record in records}
        self._compile = compile
        # Copied at once: another thread may be compiling.
        known = dict(before._compiled) if isinstance(before, _Scopes) else {}
        self._compiled: dict[str, CompiledScope | None] = {
            name: scope
            for name, scope in known.items()
            if scope is not None and self._records.get(name) == scope.record
        }

    def __getitem__(self, name: str) -> CompiledScope:
        if name not in self._compiled:
            self._compiled[name] = self._compile_or_none(self._records[name])
        found = self._compiled[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def _compile_or_none(self, record: ScopeRecord) -> CompiledScope | None:
        try:
            return self._compile(record)
        except ScopeDocumentInvalid as error:
            log.error("stored scope cannot be used", scope=record.name, version=record.version, reason=error.detail)
            return None


def pin(conn: Connection, decided_under: Policy) -> None:
    """Hold the rules still until this transaction commits.

    Raises:
        PolicyChanged: when they are no longer those of the decision.
    """
    if policy.pin_revision(conn) != decided_under.revision:
        raise PolicyChanged


async def until_settled(decide_and_record: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a decision with its record, again when the rules changed in between.

    Raises:
        Overloaded: when they change faster than a decision can be recorded.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await decide_and_record()
        except PolicyChanged:
            continue
    raise Overloaded("the rules changed during each of several attempts to record the decision")
