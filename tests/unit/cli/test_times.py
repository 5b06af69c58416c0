from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.cli.times import clock_time, full_time, parse_duration, parse_moment, rfc3339, short_time, span

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "0s", "1", "h", "-1h", "1.5h", "1h30m", "1 h", "1H", "1h\n", "٣h", "9999999s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("2026-01-31T12:00:00Z", NOW),
        ("2026-01-31T14:00:00+02:00", NOW),
        ("2026-01-31T12:00:00", NOW),
        ("2026-01-31", NOW.replace(hour=0)),
        ("2026-01-31T12:00:00.250Z", NOW.replace(microsecond=250_000)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOW) == expected
    assert parse_moment(text, NOW).utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12:00", "1700000000"])
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration ago such as 2h, or a time"):
        parse_moment(text, NOW)


def test_moments_are_shown_in_utc() -> None:
    moment = datetime(2026, 1, 31, 14, 0, 5, 250_999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-31T12:00:05.250999Z"
    assert full_time(moment) == "2026-01-31 12:00:05Z"
    assert short_time(moment) == "01-31 12:00:05"
    assert clock_time(moment) == "12:00:05.250"


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(seconds=90), "1m 30s"),
        (timedelta(minutes=15), "15m"),
        (timedelta(hours=2, seconds=1), "2h 1s"),
        (timedelta(days=3, hours=4, minutes=5), "3d 4h"),
        (timedelta(seconds=-90), "-1m 30s"),
    ],
)
def test_spans(length: timedelta, expected: str) -> None:
    assert span(length) == expected
