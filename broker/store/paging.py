"""Pages of lists: each starts after the last item of the one before.

A page token holds that item's key and a digest of the question it answers. It
is not secret and grants nothing: whoever makes one up only chooses where to
start reading in what the question shows anyway.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, TypeDecorator

from broker.errors import InvalidArgument, PageTokenInvalid
from broker.model import Page
from broker.store.filters import Field, parse
from broker.store.rows import Record, Rows

T = TypeVar("T")
R = TypeVar("R", bound=Record)

MAX_PAGE: Final = 1000

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """One page of a list.

    Attributes:
        items: The items.
        next_token: Token of the next page; empty on the last one.
    """

    items: Sequence[T]
    next_token: str


class Listing(Generic[R]):
    """A list that is read in pages.

    Args:
        name: Names the list in its tokens.
        rows: What is listed.
        key: Unique text that orders the list.
        fields: What a filter may compare.
        ascending: Lowest key first; otherwise highest, which is newest for identifiers.
    """

    def __init__(
        self,
        name: str,
        rows: Rows[R],
        key: Column[str],
        *,
        fields: Mapping[str, Field] | None = None,
        ascending: bool = False,
    ) -> None:
        self._name = name
        self._rows = rows
        self._key = key
        self._fields = fields or {}
        self._ascending = ascending

    def page(self, conn: Connection, page: Page, *where: ColumnElement[bool], bound_to: str = "") -> PageOf[R]:
        """Return a page of the rows that satisfy the conditions and the filter.

        Args:
            conn: The transaction.
            page: Which page.
            where: Conditions beside the filter.
            bound_to: What these conditions depend on, so that a token of one
                caller's list is no token of another's.

        Raises:
            FilterInvalid: when the filter cannot be understood.
            PageTokenInvalid: when the token belongs to another question.
        """
        if not 1 <= page.size <= MAX_PAGE:
            raise RuntimeError(f"a page has 1 to {MAX_PAGE} items, not {page.size}")
        digest = _digest(self._name, page.filter, bound_to)
        conditions = [*where, *parse(page.filter, self._fields)]
        if page.token:
            last = self._last_key(conn, page.token, digest)
            conditions.append(self._key > last if self._ascending else self._key < last)
        order = self._key.asc() if self._ascending else self._key.desc()
        statement = self._rows.select(*conditions).order_by(order).limit(page.size + 1)
        found = self._rows.all(conn, statement, {})
        items = found[: page.size]
        more = len(found) > page.size
        return PageOf(items, _token(digest, getattr(items[-1], self._key.name)) if more else "")

    def _last_key(self, conn: Connection, token: str, digest: bytes) -> str:
        """Return the key that a token starts after.

        Raises:
            PageTokenInvalid: when it is no token of this question.
        """
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            last = raw[_DIGEST_BYTES:].decode()
            if isinstance(self._key.type, TypeDecorator):
                self._key.type.process_bind_param(last, conn.dialect)
        except (ValueError, InvalidArgument):
            raise PageTokenInvalid("it cannot be read") from None
        if _token(digest, last) != token:
            raise PageTokenInvalid("it belongs to another question")
        return last


def _digest(*question: str) -> bytes:
    return hashlib.sha256(json.dumps(question).encode()).digest()[:_DIGEST_BYTES]


def _token(digest: bytes, last: str) -> str:
    return base64.urlsafe_b64encode(digest + last.encode()).decode().rstrip("=")
