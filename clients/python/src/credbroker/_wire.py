"""Between Python values and the contract's messages."""

import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_EXACT = 2**53


def to_duration(seconds: float | None) -> Duration | None:
    """Return a message for seconds."""
    if seconds is None:
        return None
    whole = math.floor(seconds)
    return Duration(seconds=whole, nanos=min(999_999_999, round((seconds - whole) * 1_000_000_000)))


def to_time(message: Timestamp) -> datetime:
    """Return an aware datetime in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def to_struct(values: Mapping[str, object]) -> Struct:
    """Return scope parameters as a message.

    Raises:
        TypeError: when a value is not JSON.
        ValueError: when a number cannot be sent exactly.
    """
    struct = Struct()
    struct.update({_name(name, "parameters"): _json(value, str(name)) for name, value in values.items()})
    return struct


def from_struct(struct: Struct) -> dict[str, JsonValue]:
    """Return a message's values, ordered by name; whole numbers as int."""
    return {name: _plain(struct.fields[name]) for name in sorted(struct.fields)}


def made_at(identifier: str) -> datetime | None:
    """Return when a UUIDv7 was made, rounded up to milliseconds; None for anything else.

    RFC 9562, section 5.7: the first 48 bits are whole milliseconds. Rounding
    them up makes no lifetime that is counted from here too long.
    """
    try:
        value = uuid.UUID(identifier)
    except ValueError:
        return None
    if value.version != 7:
        return None
    return datetime.fromtimestamp(((value.int >> 80) + 1) / 1000, UTC)


def _plain(value: Value) -> JsonValue:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
    return None


def _name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{where}: names must be text, not {type(name).__name__}")
    return name


def _json(value: object, where: str) -> JsonValue:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        if abs(value) > _EXACT:
            raise ValueError(f"{where}: whole numbers beyond 2**53 cannot be sent exactly; use text")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: must be finite")
        return value
    if isinstance(value, list | tuple):
        return [_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_name(name, where): _json(item, f"{where}.{name}") for name, item in value.items()}
    raise TypeError(f"{where}: must be a JSON value, not {type(value).__name__}")
