"""The rules in force, as one snapshot that every decision is made under.

Each change of a scope or a lock raises one number in the database. A decision
reads it, and the transaction that records what was decided pins it: when it
has moved, the decision is made again. So a lock or a narrowed scope refuses
exactly from its own commit on, on every replica, without any broadcast.
"""

from collections.abc import Callable, Coroutine, Mapping
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
        scopes: Current scopes by name; one that cannot be compiled is left
            out, hence refused.
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
        records = scopes.current(conn)
        compiled = {record.name: scope for record in records if (scope := self._compiled(record, known)) is not None}
        fresh = Policy(revision=revision, scopes=compiled, locks=tuple(locks.in_force(conn, now)))
        self._policy = fresh
        return fresh

    def _compiled(self, record: ScopeRecord, known: Policy) -> CompiledScope | None:
        before = known.scopes.get(record.name)
        if before is not None and before.record == record:
            return before
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
