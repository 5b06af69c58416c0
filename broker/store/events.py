"""Audit events: appended, never changed."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select, text, union_all

from broker.model import AuditEvent, Issuance, Outcome, Page
from broker.store import filters, schema
from broker.store.cleaning import clean, clean_json, clean_key
from broker.store.columns import constant
from broker.store.insertion import Insertion
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows

_MOST_OF_TASK = 1000

_table = schema.events
_rows = Rows(_table, AuditEvent)
_INSERT = Insertion(_table, _rows.names)

_OF_ISSUANCE = _rows.select(_table.c.issuance_id == bindparam("issuance_id_"))
_OF_TASK = (
    _rows.select(
        _table.c.task_id == bindparam("task_id_"),
        _table.c.issuance_id.is_(None),
        # Refused requests are not part of a credential's life, and an agent
        # can make any number of them.
        _table.c.outcome != constant(Outcome.DENIED),
    )
    .order_by(_table.c.id)
    .limit(_MOST_OF_TASK)
    .subquery()
)
_LIFE = union_all(_OF_ISSUANCE, _OF_TASK.select()).order_by("id")
# The first two conditions are those of the index that was made for it.
_REFUSED: Select[Any] = (
    select(literal_column("1"))
    .where(
        _table.c.outcome == constant(Outcome.DENIED),
        text("reason <> 'LOCKED'"),
        _table.c.agent == bindparam("agent_"),
        _table.c.time > bindparam("since_"),
        _table.c.actor == bindparam("agent_"),
        _table.c.reason.in_(bindparam("reasons_", expanding=True)),
    )
    .limit(bindparam("most_"))
)
_COUNT_REFUSED = select(func.count()).select_from(_REFUSED.subquery())

_LISTING = Listing(
    "events",
    _rows,
    _table.c.time,
    _table.c.id,
    sought=(_table.c.issuance_id, _table.c.task_id, _table.c.agent, _table.c.type),
    fields={
        "type": filters.text(_table.c.type),
        "outcome": filters.choice(_table.c.outcome, Outcome),
        "reason": filters.text(_table.c.reason),
        "actor": filters.text(_table.c.actor),
        "agent": filters.text(_table.c.agent),
        "method": filters.text(_table.c.method),
        "task_id": filters.identifier(_table.c.task_id),
        "issuance_id": filters.identifier(_table.c.issuance_id),
        "scope": filters.text(_table.c.scope),
        "time": filters.moment(_table.c.time),
    },
)


def append(conn: Connection, events: Sequence[AuditEvent]) -> None:
    """Append events. What a database could not hold of their text is escaped, so that none is lost."""
    if events:
        _INSERT(conn, [tuple(_storable(event).values()) for event in events])


def _storable(event: AuditEvent) -> dict[str, object]:
    values = _rows.values(event)
    for name in ("actor", "method", "reason", "detail", "peer"):
        values[name] = clean(str(values[name]))
    for name in ("type", "agent", "scope"):
        values[name] = clean_key(str(values[name]))
    values["attributes"] = clean_json(dict(event.attributes))
    return values


def of_issuance(conn: Connection, issuance: Issuance) -> list[AuditEvent]:
    """Return the events of a credential's life, its task's start and end included, oldest first."""
    return _rows.all(conn, _LIFE, {"issuance_id_": issuance.id, "task_id_": issuance.task_id})


def count_refused(conn: Connection, agent: str, since: datetime, reasons: Collection[str], most: int) -> int:
    """Count the requests of an agent that were refused for some reasons.

    Args:
        conn: The transaction.
        agent: Who asked.
        since: After which moment an event counts.
        reasons: Which refusals; never ``LOCKED``.
        most: Where counting stops.
    """
    values = {"agent_": agent, "since_": since, "reasons_": sorted(reasons), "most_": most}
    return int(conn.execute(_COUNT_REFUSED, values).scalar_one())


def page(conn: Connection, page: Page) -> PageOf[AuditEvent]:
    """Return a page of events, newest first.

    Raises:
        FilterInvalid: when the filter cannot be understood.
        PageTokenInvalid: when the token belongs to another question.
    """
    return _LISTING.page(conn, page)
