"""Moments and durations: from the broker's records to messages. What is absent stays so."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def time(value: datetime | None) -> Timestamp | None:
    """Return a moment's message."""
    if value is None:
        return None
    message = Timestamp()
    message.FromDatetime(value)
    return message


def duration(value: timedelta | None) -> Duration | None:
    """Return a duration's message."""
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message
