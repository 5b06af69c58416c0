"""Moments and durations: from the broker's records to messages. What is absent stays so."""

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_A_DAY: Final = 86_400


def time(value: datetime | None) -> Timestamp | None:
    """Return a moment's message."""
    if value is None:
        return None
    since = value - _EPOCH
    return Timestamp(seconds=since.days * _SECONDS_A_DAY + since.seconds, nanos=since.microseconds * 1000)


def duration(value: timedelta | None) -> Duration | None:
    """Return a duration's message."""
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message
