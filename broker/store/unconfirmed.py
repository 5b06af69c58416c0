"""What Vault has yet to confirm, for people to see."""

from datetime import datetime

from sqlalchemy import Connection, bindparam

from broker.model import Page, Revocation
from broker.store import schema
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows

_table = schema.revocations
_rows = Rows(_table, Revocation)
_unconfirmed = _table.c.confirmed_at.is_(None)

_OVERDUE = (
    _rows.select(_unconfirmed, _table.c.requested_at < bindparam("before_"))
    .order_by(_table.c.requested_at, _table.c.id)
    .limit(bindparam("limit_"))
)
_LISTING = Listing("revocations", _rows, _table.c.id, ascending=True)


def page(conn: Connection, page: Page) -> PageOf[Revocation]:
    """Return a page of what is not confirmed, oldest first.

    Raises:
        FilterInvalid: when there is a filter.
        PageTokenInvalid: when the token belongs to another list.
    """
    return _LISTING.page(conn, page, _unconfirmed)


def overdue(conn: Connection, before: datetime, limit: int) -> list[Revocation]:
    """Return what was asked for before a moment and is not confirmed, the longest waiting first."""
    return _rows.all(conn, _OVERDUE, {"before_": before, "limit_": limit})
