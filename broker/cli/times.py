"""Durations and moments, as operators write and read them. All in UTC."""

import re
from datetime import UTC, datetime, timedelta

_DURATION = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``2h`` or ``7d``.

    Raises:
        ValueError: when it is anything else, or zero.
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("must be a duration such as 90s, 15m, 2h or 7d")
    return int(match[1]) * _UNITS[match[2]]


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a moment: a duration before now, or an RFC 3339 time or date.

    A time without an offset is taken as UTC, so that the same command means
    the same on every machine.

    Raises:
        ValueError: when it is neither.
    """
    if _DURATION.fullmatch(text):
        return now - parse_duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a duration ago such as 2h, or a time such as 2026-01-31T12:00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def rfc3339(moment: datetime) -> str:
    """Return the moment for a filter, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def full_time(moment: datetime) -> str:
    """Return the moment to the second, ``2026-01-31 12:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def short_time(moment: datetime) -> str:
    """Return the moment for a narrow column, ``01-31 12:00:00``."""
    return moment.astimezone(UTC).strftime("%m-%d %H:%M:%S")


def clock_time(moment: datetime) -> str:
    """Return the time of day to the millisecond, ``12:00:00.250``."""
    return moment.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def span(length: timedelta) -> str:
    """Return a duration in its two largest units: ``2h 30m``, ``15m``, ``1.5s``."""
    seconds = length.total_seconds()
    if seconds < 0:
        return f"-{span(-length)}"
    if seconds < 60 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    left = int(seconds)
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) or "0s"
