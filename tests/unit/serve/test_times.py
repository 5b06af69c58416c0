"""Moments on the wire."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.serve.convert.times import time


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(2026, 7, 1, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_a_moment_is_the_same_on_the_wire(moment: datetime) -> None:
    message = time(moment)
    assert message is not None
    assert message.ToDatetime(UTC) == moment
    assert 0 <= message.nanos < 1_000_000_000


def test_what_is_absent_stays_so() -> None:
    assert time(None) is None
