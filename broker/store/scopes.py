"""Scopes and their versions."""

from sqlalchemy import Connection, bindparam, func, select, update

from broker.model import Page, ScopeRecord
from broker.store import schema
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows

_table = schema.scopes
_rows = Rows(_table, ScopeRecord)
_named = _table.c.name == bindparam("name_")

_CURRENT = _rows.select(_table.c.current).order_by(_table.c.name)
_GET_CURRENT = _rows.select(_named, _table.c.current)
_GET_VERSION = _rows.select(_named, _table.c.version == bindparam("version_"))
_NEWEST = select(func.coalesce(func.max(_table.c.version), 0)).where(_named)
_RETIRE = update(_table).where(_named, _table.c.current).values(current=False)
_LISTING = Listing("scopes", _rows, _table.c.name, ascending=True)


def current(conn: Connection) -> list[ScopeRecord]:
    """Return the current version of every scope, by name."""
    return _rows.all(conn, _CURRENT, {})


def get(conn: Connection, name: str, version: int | None) -> ScopeRecord | None:
    """Return one version of a scope, or the current one for None."""
    if version is None:
        return _rows.one(conn, _GET_CURRENT, {"name_": name})
    return _rows.one(conn, _GET_VERSION, {"name_": name, "version_": version})


def newest_version(conn: Connection, name: str) -> int:
    """Return the highest version a scope ever had, retired ones included; 0 for none."""
    return int(conn.execute(_NEWEST, {"name_": name}).scalar_one())


def insert(conn: Connection, record: ScopeRecord) -> None:
    """Store a version; it becomes the only current one of its name."""
    retire(conn, record.name)
    conn.execute(_rows.insert, {**_rows.values(record), "current": True})


def retire(conn: Connection, name: str) -> bool:
    """Leave a scope without a current version; False when it had none."""
    return conn.execute(_RETIRE, {"name_": name}).rowcount > 0


def page(conn: Connection, page: Page) -> PageOf[ScopeRecord]:
    """Return a page of current versions, by name.

    Raises:
        FilterInvalid: when there is a filter.
        PageTokenInvalid: when the token belongs to another list.
    """
    return _LISTING.page(conn, page, _table.c.current)
