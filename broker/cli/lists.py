"""Lists from the broker: page after page, and one record by the end of its identifier."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from broker.cli.failures import Failure
from broker.cli.fetch import Fetch
from broker.cli.output import Format, note, print_list
from broker.cli.table import Column, Row

PAGE_SIZE = 200
FULL_ID = 36
SEARCHED = 2000

Item = TypeVar("Item")


class Identified(Protocol):
    """Anything with an identifier."""

    @property
    def id(self) -> str:
        """The identifier."""
        ...


def pages(fetch: Fetch[Item], limit: int = 0) -> Iterator[Item]:
    """Follow pages until the limit; 0 follows them to the end.

    Args:
        fetch: Takes the page size and token, gives the items and the next token.
        limit: The most items to yield.
    """
    token, left = "", limit
    while True:
        items, token = fetch(min(PAGE_SIZE, left) if limit else PAGE_SIZE, token)
        for item in items:
            yield item
            left -= 1
            if limit and left <= 0:
                return
        if not token:
            return


def show_list(
    fetch: Fetch[Row],
    columns: Sequence[Column[Row]],
    output: Format,
    *,
    limit: int,
    wide: bool,
    empty: str,
) -> None:
    """Print a list, and say when the limit has cut it."""
    shown = 0

    def counted() -> Iterator[Row]:
        nonlocal shown
        for item in islice(found, limit or None):
            shown += 1
            yield item

    found = pages(fetch, limit + 1 if limit else 0)
    print_list(counted(), columns, output, wide=wide, empty=empty)
    if limit and shown == limit and next(found, None) is not None:
        note(f"only the first {limit} are shown; --limit 0 shows all")


def full_id(text: str, kind: str, fetch: Fetch[Identified]) -> str:
    """Return the identifier that ends as given.

    Args:
        text: A whole identifier, or the end of one as tables show it.
        kind: What it identifies, in words.
        fetch: Lists the newest records; asked only when needed.

    Raises:
        Failure: when none or several of the newest records match.
    """
    end = text.removeprefix("…").lower()
    if len(end) >= FULL_ID:
        return end
    found = [item.id for item in pages(fetch, SEARCHED) if end and item.id.endswith(end)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(f"no {kind} among the newest {SEARCHED} ends in {end!r}", advice="give the whole identifier")
    raise Failure(f"several {kind}s end in {end!r}", advice="give more of the identifier", details=found)
