"""Issuances: the record of each credential, from its intent to its confirmed end."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, literal_column, or_, select, text, update

from broker.model import LIVE_ISSUANCES, Issuance, IssuanceState, Page, Revocability, Selection
from broker.store import filters, schema
from broker.store.columns import constant
from broker.store.insertion import Insertion
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows
from broker.store.statement import Statement


class Ending(NamedTuple):
    """What is told and taken back when issuances end, without all that the record holds."""

    id: str
    task_id: str
    anchor_id: str
    agent: str
    scope: str
    scope_version: int
    accessor: str | None
    lease_id: str | None
    end_reason: str


# Key of the advisory lock under which limits are counted.
_LIMITS_LOCK = 0x63726564_6C696D69

_table = schema.issuances
_rows = Rows(_table, Issuance)
_ending = tuple(_table.c[name] for name in Ending._fields)
_by_id = _table.c.id == bindparam("id_")
_listed = _table.c.id.in_(bindparam("ids_", expanding=True))
_live = _table.c.state.in_([constant(state) for state in LIVE_ISSUANCES])
_minting = _table.c.state == constant(IssuanceState.MINTING)
_active = _table.c.state == constant(IssuanceState.ACTIVE)
_revoking = _table.c.state == constant(IssuanceState.REVOKING)

_INSERT = Insertion(_table, _rows.names)
_INSERT_UNLESS_REUSED = Insertion(_table, _rows.names, unless_known=("agent", "request_id"))
_STORED = select(_table.c.id).where(_listed)
_GET = _rows.select(_by_id)
_PIN = _GET.with_for_update()
_BY_REQUEST = _rows.select(_table.c.agent == bindparam("agent_"), _table.c.request_id == bindparam("request_id_"))
_ACTIVATE = (
    update(_table)
    .where(_by_id, _minting)
    .values(
        state=IssuanceState.ACTIVE,
        expires_at=bindparam("expires_at_"),
        max_expires_at=bindparam("max_expires_at_"),
        fingerprint=bindparam("fingerprint_"),
        lease_id=bindparam("lease_id_"),
        accessor=bindparam("accessor_"),
        renewable=bindparam("renewable_"),
    )
)
_RENEWED = (
    update(_table).where(_by_id, _active).values(expires_at=bindparam("expires_at_"), renewed_at=bindparam("now_"))
)
_revoking_values = {
    "state": IssuanceState.REVOKING,
    "revoke_requested_at": bindparam("now_"),
    "end_reason": bindparam("reason_"),
}
_REQUEST_REVOCATION = update(_table).where(_by_id, or_(_minting, _active)).values(_revoking_values)
_revocable = or_(_minting, _active & (_table.c.revocability != Revocability.AT_EXPIRY))
_REVOKE = update(_table).where(_revocable).values(_revoking_values).returning(*_ending)
_REVOKE_OF_TASKS = Statement(_REVOKE.where(_table.c.task_id.in_(bindparam("task_ids_", expanding=True))))
_REVOKE_OF_ANCHORS = _REVOKE.where(_table.c.anchor_id.in_(bindparam("anchor_ids_", expanding=True)))
_REVOKE_LISTED = _REVOKE.where(_listed)
_STILL_REVOKING = select(_table.c.id).where(_listed, _revoking)
_RELEASE_REQUEST = update(_table).where(_by_id).values(request_id=None)
_FAIL = (
    update(_table)
    .where(_by_id, _minting)
    .values(state=IssuanceState.FAILED, end_reason=bindparam("reason_"), ended_at=bindparam("now_"))
)
_CONFIRM = (
    update(_table)
    .where(_listed, _revoking)
    .values(state=bindparam("state_"), ended_at=bindparam("now_"))
    .returning(*_ending)
)
# What has a token of its own is confirmed by itself.
_CONFIRM_OF_ANCHORS = Statement(
    update(_table)
    .where(_table.c.anchor_id.in_(bindparam("anchor_ids_", expanding=True)), _table.c.accessor.is_(None), _revoking)
    .values(state=IssuanceState.REVOKED, ended_at=bindparam("now_"))
    .returning(*_ending)
)
_EXPIRED = (
    select(_table.c.id, _table.c.accessor, _table.c.lease_id)
    .where(_active, _table.c.expires_at <= bindparam("now_"))
    .order_by(_table.c.expires_at)
    .limit(bindparam("limit_"))
)
# A renewal may have come between finding them and this.
_EXPIRE = (
    update(_table)
    .where(_listed, _active, _table.c.expires_at <= bindparam("now_"))
    .values(state=IssuanceState.EXPIRED, ended_at=_table.c.expires_at)
    .returning(*_ending)
)
_MINTING_BEFORE = (
    _rows.select(_minting, _table.c.created_at < bindparam("before_"))
    .order_by(_table.c.created_at)
    .limit(bindparam("limit_"))
)
_COUNT_SINCE = select(func.count()).where(
    _table.c.agent == bindparam("agent_"),
    _table.c.scope == bindparam("scope_"),
    _table.c.created_at >= bindparam("since_"),
    _table.c.state != IssuanceState.FAILED,
)
_ISSUED: Select[Any] = (
    select(literal_column("1"))
    .where(
        _table.c.agent == bindparam("agent_"),
        _table.c.created_at > bindparam("since_"),
        _table.c.state != IssuanceState.FAILED,
    )
    .limit(bindparam("most_"))
)
_COUNT_ISSUED = select(func.count()).select_from(_ISSUED.subquery())
_LOCK_LIMITS = text(f"SELECT pg_advisory_xact_lock({_LIMITS_LOCK})")

_LISTING = Listing(
    "issuances",
    _rows,
    _table.c.created_at,
    _table.c.id,
    sought=(_table.c.fingerprint, _table.c.task_id, _table.c.agent, _table.c.scope, _table.c.state),
    fields={
        "agent": filters.text(_table.c.agent),
        "task_id": filters.identifier(_table.c.task_id),
        "scope": filters.text(_table.c.scope),
        "scope_version": filters.number(_table.c.scope_version),
        "kind": filters.text(_table.c.kind),
        "state": filters.choice(_table.c.state, IssuanceState),
        "fingerprint": filters.text(_table.c.fingerprint),
        "create_time": filters.moment(_table.c.created_at),
        "expire_time": filters.moment(_table.c.expires_at),
        "end_time": filters.moment(_table.c.ended_at),
    },
)


def insert(conn: Connection, issuance: Issuance) -> None:
    """Store an issuance."""
    _INSERT(conn, [_rows.row(issuance)])


def insert_unless_reused(conn: Connection, issuances: Sequence[Issuance]) -> bool:
    """Store issuances, except those for a request that was granted before; say whether all were stored."""
    return _INSERT_UNLESS_REUSED(conn, [_rows.row(issuance) for issuance in issuances]) == len(issuances)


def stored(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Return which of these issuances are stored."""
    return {str(found) for found in conn.execute(_STORED, {"ids_": list(ids)}).scalars()}


def get(conn: Connection, issuance_id: str) -> Issuance | None:
    """Return an issuance."""
    return _rows.one(conn, _GET, {"id_": issuance_id})


def pin(conn: Connection, issuance_id: str) -> Issuance | None:
    """Return an issuance as it is now; nobody else can change it before this transaction ends."""
    return _rows.one(conn, _PIN, {"id_": issuance_id})


def by_request(conn: Connection, agent: str, request_id: str) -> Issuance | None:
    """Return the issuance that an agent was granted for this request."""
    return _rows.one(conn, _BY_REQUEST, {"agent_": agent, "request_id_": request_id})


def activate(
    conn: Connection,
    issuance_id: str,
    *,
    expires_at: datetime,
    max_expires_at: datetime,
    fingerprint: str,
    lease_id: str | None,
    accessor: str | None,
    renewable: bool,
) -> bool:
    """Note what was minted; False when the issuance is not MINTING any more."""
    values = {
        "id_": issuance_id,
        "expires_at_": expires_at,
        "max_expires_at_": max_expires_at,
        "fingerprint_": fingerprint,
        "lease_id_": lease_id,
        "accessor_": accessor,
        "renewable_": renewable,
    }
    return conn.execute(_ACTIVATE, values).rowcount == 1


def renewed(conn: Connection, issuance_id: str, expires_at: datetime, now: datetime) -> bool:
    """Note a renewal; False when the issuance is not ACTIVE."""
    return conn.execute(_RENEWED, {"id_": issuance_id, "expires_at_": expires_at, "now_": now}).rowcount == 1


def request_revocation(conn: Connection, issuance_id: str, reason: str, now: datetime) -> bool:
    """Move one that is MINTING or ACTIVE to REVOKING; False when it is neither."""
    return conn.execute(_REQUEST_REVOCATION, {"id_": issuance_id, "reason_": reason, "now_": now}).rowcount == 1


def revoke(conn: Connection, ids: Sequence[str], reason: str, now: datetime) -> list[Ending]:
    """Move those of these that are MINTING or ACTIVE to REVOKING and return them, except what can only expire."""
    values = {"ids_": list(ids), "reason_": reason, "now_": now}
    return [Ending(*row) for row in conn.execute(_REVOKE_LISTED, values)] if ids else []


def revoke_of_tasks(conn: Connection, task_ids: Sequence[str], reason: str, now: datetime) -> list[Ending]:
    """Do as `revoke` with what these tasks hold."""
    values = {"task_ids_": list(task_ids), "reason_": reason, "now_": now}
    return [Ending(*row) for row in _REVOKE_OF_TASKS.rows(conn, values)] if task_ids else []


def revoke_of_anchors(conn: Connection, anchor_ids: Sequence[str], reason: str, now: datetime) -> list[Ending]:
    """Do as `revoke` with what hangs from these anchors."""
    values = {"anchor_ids_": list(anchor_ids), "reason_": reason, "now_": now}
    return [Ending(*row) for row in conn.execute(_REVOKE_OF_ANCHORS, values)] if anchor_ids else []


def release_request(conn: Connection, issuance_id: str) -> None:
    """Let the request be made again under its id: nothing was handed out for it."""
    conn.execute(_RELEASE_REQUEST, {"id_": issuance_id})


def fail(conn: Connection, issuance_id: str, reason: str, now: datetime) -> bool:
    """Note that nothing was minted; False when the issuance is not MINTING any more."""
    return conn.execute(_FAIL, {"id_": issuance_id, "reason_": reason, "now_": now}).rowcount == 1


def revocable(conn: Connection, wanted: Selection, limit: int) -> list[Issuance]:
    """Return some of what is selected and could be revoked, and is not yet.

    Raises:
        ValueError: when nothing is given: everything is never meant.
    """
    given = wanted.given()
    if not given:
        raise ValueError("a selection must say what it selects")
    return _rows.all(conn, _selecting(tuple(given)), {"limit_": limit, **{f"{n}_": v for n, v in given.items()}})


@cache
def _selecting(names: tuple[str, ...]) -> Select[Any]:
    # States are listed as the partial indices list them, so that these are used.
    conditions = [_table.c[name] == bindparam(f"{name}_") for name in names]
    return _rows.select(_live, _revocable, *conditions).limit(bindparam("limit_"))


def revoking(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Return which of these issuances Vault has not confirmed to be gone."""
    return [str(found) for found in conn.execute(_STILL_REVOKING, {"ids_": list(ids)}).scalars()]


def confirm(conn: Connection, ids: Sequence[str], now: datetime, *, expired: bool = False) -> list[Ending]:
    """Note that Vault no longer knows those of these that are REVOKING, and return them.

    Args:
        conn: The transaction.
        ids: Which issuances.
        now: When Vault said so.
        expired: Their time had run out; they end as EXPIRED, not as REVOKED.
    """
    state = IssuanceState.EXPIRED if expired else IssuanceState.REVOKED
    values = {"ids_": list(ids), "state_": state, "now_": now}
    return [Ending(*row) for row in conn.execute(_CONFIRM, values)] if ids else []


def confirm_of_anchors(conn: Connection, anchor_ids: Sequence[str], now: datetime) -> list[Ending]:
    """Note that Vault no longer knows anchors: what is REVOKING and has no token of its own died with them."""
    values = {"anchor_ids_": list(anchor_ids), "now_": now}
    return [Ending(*row) for row in _CONFIRM_OF_ANCHORS.rows(conn, values)] if anchor_ids else []


class Expired(NamedTuple):
    """An issuance whose time has run out, and what Vault can be asked about."""

    id: str
    accessor: str | None
    lease_id: str | None


def expired(conn: Connection, now: datetime, limit: int) -> list[Expired]:
    """Return what is ACTIVE past its expiry, the longest expired first."""
    return [Expired(*row) for row in conn.execute(_EXPIRED, {"now_": now, "limit_": limit})]


def expire(conn: Connection, ids: Sequence[str], now: datetime) -> list[Ending]:
    """Note that the time of what is ACTIVE ran out, and return it; whatever was renewed meanwhile stays."""
    return [Ending(*row) for row in conn.execute(_EXPIRE, {"ids_": list(ids), "now_": now})] if ids else []


def minting_before(conn: Connection, before: datetime, limit: int) -> list[Issuance]:
    """Return what is MINTING since before a moment, oldest first."""
    return _rows.all(conn, _MINTING_BEFORE, {"before_": before, "limit_": limit})


def lock_limits(conn: Connection) -> None:
    """Hold all counts still until this transaction ends.

    On SQLite a write transaction does so anyway.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(_LOCK_LIMITS)


def count_live(
    conn: Connection, *, task_id: str | None = None, agent: str | None = None, scope: str | None = None
) -> int:
    """Count what is alive and has all that is given."""
    given = {"task_id": task_id, "agent": agent, "scope": scope}
    names = tuple(name for name, value in given.items() if value is not None)
    return int(conn.execute(_counting_live(names), {f"{name}_": given[name] for name in names}).scalar_one())


@cache
def _counting_live(names: tuple[str, ...]) -> Select[int]:
    return select(func.count()).where(_live, *(_table.c[name] == bindparam(f"{name}_") for name in names))


def count_since(conn: Connection, *, agent: str, scope: str, since: datetime) -> int:
    """Count what an agent was issued under a scope since a moment; failed attempts do not count."""
    return int(conn.execute(_COUNT_SINCE, {"agent_": agent, "scope_": scope, "since_": since}).scalar_one())


def count_issued(conn: Connection, agent: str, since: datetime, most: int) -> int:
    """Count what an agent was issued under any scope; failed attempts do not count.

    Args:
        conn: The transaction.
        agent: Whose.
        since: After which moment an issuance counts.
        most: Where counting stops.
    """
    return int(conn.execute(_COUNT_ISSUED, {"agent_": agent, "since_": since, "most_": most}).scalar_one())


def page(conn: Connection, page: Page) -> PageOf[Issuance]:
    """Return a page of issuances, newest first.

    Raises:
        FilterInvalid: when the filter cannot be understood.
        PageTokenInvalid: when the token belongs to another question.
    """
    return _LISTING.page(conn, page)
