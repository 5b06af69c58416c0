"""List filters (a subset of AIP-160), put together from options."""

from collections.abc import Sequence
from datetime import datetime

from broker.cli.times import rfc3339


def quote(text: str) -> str:
    """Return a string literal: whatever the text holds stays inside of it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def equal(field: str, value: str | None) -> list[str]:
    """Return the condition that a field has this value; none when it is not given."""
    return [] if value is None else [f"{field} = {quote(value)}"]


def between(field: str, since: datetime | None, until: datetime | None) -> list[str]:
    """Return the conditions that a time is at or after one moment and before another."""
    found = []
    if since is not None:
        found.append(f"{field} >= {quote(rfc3339(since))}")
    if until is not None:
        found.append(f"{field} < {quote(rfc3339(until))}")
    return found


def compose(conditions: Sequence[str], raw: str | None) -> str:
    """Join conditions, and a filter as the user wrote it, with AND."""
    own = (raw or "").strip()
    return " AND ".join([*conditions, own] if own else conditions)
