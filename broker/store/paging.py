"""Pages of lists: each starts after the last item of the one before.

No page costs more for a longer history. An index leads to what is listed, in
the order of the list; whatever else a filter asks for is checked row by row,
and a page looks at no more than `SEARCHED` rows for it. What it has found by
then is the page, even if that is nothing, and its token says where to go on.

A page token holds the key that the next page starts after and a digest of the
question it answers. It is not secret and grants nothing: whoever makes one up
only chooses where to start reading in what the question shows anyway.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, TypeDecorator, literal, select, tuple_

from broker.errors import InvalidArgument, PageTokenInvalid
from broker.model import Page
from broker.store.columns import UtcTime
from broker.store.filters import Field, parse
from broker.store.rows import Record, Rows
from broker.store.search import Search, searches

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Key = tuple[Any, ...]

MAX_PAGE: Final = 1000
SEARCHED: Final = 5_000
"""Most rows that one page looks at."""

_DIGEST_BYTES = 16
_BETWEEN = "\0"  # which no text of a database holds


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """One page of a list.

    Attributes:
        items: The items; where a filter is searched in parts, perhaps fewer
            than asked for, or none, while there is a next page.
        next_token: Token of the next page; empty on the last one.
    """

    items: Sequence[T]
    next_token: str


class Listing(Generic[R]):
    """A list that is read in pages.

    Args:
        name: Names the list in its tokens.
        rows: What is listed.
        order: The columns that order the list; together they name one row.
        fields: What a filter may compare.
        sought: The columns that have an index of their own, which goes on with
            the order unless a value has few rows; the most telling first.
        ascending: Lowest key first; otherwise highest, which is newest for
            times and identifiers.
    """

    def __init__(
        self,
        name: str,
        rows: Rows[R],
        *order: Column[Any],
        fields: Mapping[str, Field] | None = None,
        sought: Sequence[Column[Any]] = (),
        ascending: bool = False,
    ) -> None:
        self._name = name
        self._rows = rows
        self._order = order
        self._fields = fields or {}
        self._sought = sought
        self._ascending = ascending
        self._sorting = tuple(column.asc() if ascending else column.desc() for column in order)

    def page(self, conn: Connection, page: Page, *where: ColumnElement[bool], bound_to: str = "") -> PageOf[R]:
        """Return a page of the rows that satisfy the conditions and the filter.

        Args:
            conn: The transaction.
            page: Which page.
            where: Conditions beside the filter, with an index that goes on
                with the order.
            bound_to: What these conditions depend on, so that a token of one
                caller's list is no token of another's.

        Raises:
            FilterInvalid: when the filter cannot be understood.
            PageTokenInvalid: when the token belongs to another question.
        """
        if not 1 <= page.size <= MAX_PAGE:
            raise RuntimeError(f"a page has 1 to {MAX_PAGE} items, not {page.size}")
        digest = _digest(self._name, page.filter, bound_to)
        ways = searches(parse(page.filter, self._fields), self._order[0], () if where else self._sought)
        after = None
        if page.token:
            after = self._comes_after(self._last_key(conn, page.token, digest, ways[0]))
        search, end = self._choose(conn, ways, where, after)
        until = None if end is None else ~self._comes_after(end)
        wanted = self._rows.select(*where, *search.sought(after, until), *search.checks())
        found = self._rows.all(conn, wanted.order_by(*self._sorting).limit(page.size + 1), {})
        items = found[: page.size]
        if len(found) > page.size:
            end = tuple(getattr(items[-1], column.name) for column in self._order)
        return PageOf(items, "" if end is None else _token(digest, end))

    def _choose(
        self,
        conn: Connection,
        ways: Sequence[Search],
        where: Sequence[ColumnElement[bool]],
        after: ColumnElement[bool] | None,
    ) -> tuple[Search, Key | None]:
        """Return the first way by which a page can look at all there is, otherwise the first.

        With it goes the key of the last row to look at; None where that is the end of the list.
        """
        ends: list[Key] = []
        for search in ways:
            if not search.checked:
                return search, None
            keys = select(*self._order).where(*where, *search.sought(after)).order_by(*self._sorting)
            last = conn.execute(keys.offset(SEARCHED - 1).limit(1)).first()
            if last is None:
                return search, None
            ends.append(tuple(last))
        return ways[0], ends[0]

    def _comes_after(self, key: Key) -> ColumnElement[bool]:
        ours = tuple_(*self._order)
        theirs = tuple_(*(literal(value, column.type) for value, column in zip(key, self._order, strict=True)))
        return ours > theirs if self._ascending else ours < theirs

    def _last_key(self, conn: Connection, token: str, digest: bytes, search: Search) -> Key:
        """Return the key that a token starts after.

        Raises:
            PageTokenInvalid: when it is no token of this question.
        """
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            written = raw[_DIGEST_BYTES:].decode().split(_BETWEEN)
            key = tuple(_read(text, column) for text, column in zip(written, self._order, strict=True))
            for value, column in zip(key, self._order, strict=True):
                if isinstance(column.type, TypeDecorator):
                    column.type.process_bind_param(value, conn.dialect)
        except (ValueError, TypeError, OverflowError, InvalidArgument):
            raise PageTokenInvalid("it cannot be read") from None
        if _token(digest, key) != token or not search.may_start_after(key[0]):
            raise PageTokenInvalid("it belongs to another question")
        return key


def _read(text: str, column: Column[Any]) -> object:
    return datetime.fromisoformat(text) if isinstance(column.type, UtcTime) else text


def _digest(*question: str) -> bytes:
    return hashlib.sha256(json.dumps(question).encode()).digest()[:_DIGEST_BYTES]


def _token(digest: bytes, key: Key) -> str:
    written = _BETWEEN.join(value.isoformat() if isinstance(value, datetime) else str(value) for value in key)
    return base64.urlsafe_b64encode(digest + written.encode()).decode().rstrip("=")
