"""Which part of a list a caller wants."""

from typing import Final

from broker.model import Page
from broker.serve.convert.checks import Checks

MAX_PAGE_TOKEN: Final = 2048
MAX_FILTER: Final = 2048
MAX_PAGE_SIZE: Final = 1000
DEFAULT_PAGE_SIZE: Final = 50


def read_page(size: int, token: str, filter: str = "") -> Page:  # noqa: A002 - named like the contract's field
    """Check which part of a list is wanted."""
    checks = Checks()
    if size < 0:
        checks.violate("page_size", "must not be negative")
    checks.text(token, "page_token", shortest=0, longest=MAX_PAGE_TOKEN)
    checks.text(filter, "filter", shortest=0, longest=MAX_FILTER)
    checks.done()
    return Page(size=min(size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE, token=token, filter=filter)
