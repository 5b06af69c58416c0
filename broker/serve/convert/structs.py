"""``google.protobuf.Struct`` in both directions.

A Struct knows only doubles. Whole ones are read as integers, so that a schema
or a condition that speaks of integers means what its author thinks.
"""

import math
from collections.abc import Mapping
from typing import Final

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from broker.model import JsonObject, JsonValue
from broker.serve.convert.checks import Checks, is_plain

MAX_DEPTH: Final = 8
MAX_KEYS: Final = 100
MAX_KEY_CHARS: Final = 128
MAX_BYTES: Final = 16 * 1024

# A certificate request or a statement is a legitimate parameter of several lines.
_LAYOUT = str.maketrans("", "", "\n\r\t")

# Beyond it doubles no longer tell neighbouring integers apart.
_MAX_INTEGER = 2**53


def read_struct(checks: Checks, message: Struct, field: str) -> dict[str, JsonValue]:
    """Check a Struct and return it as a dict.

    At most `MAX_DEPTH` levels, `MAX_KEYS` keys on all levels together and
    `MAX_BYTES` encoded; no control characters, no values that JSON lacks.
    """
    if message.ByteSize() > MAX_BYTES:
        checks.violate(field, f"must be at most {MAX_BYTES} bytes")
        return {}
    return _Reader(checks).object(message, field, 1)


class _Reader:
    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._keys = 0

    def object(self, message: Struct, path: str, depth: int) -> dict[str, JsonValue]:
        self._keys += len(message.fields)
        if self._too_much(path, depth):
            return {}
        found: dict[str, JsonValue] = {}
        for key, value in message.fields.items():
            if not 1 <= len(key) <= MAX_KEY_CHARS or not is_plain(key):
                self._checks.violate(path, f"must have keys of 1 to {MAX_KEY_CHARS} characters, none of them control")
            else:
                found[key] = self._value(value, f"{path}.{key}", depth)
        return found

    def _array(self, message: ListValue, path: str, depth: int) -> list[JsonValue]:
        if self._too_much(path, depth):
            return []
        return [self._value(value, f"{path}[{index}]", depth) for index, value in enumerate(message.values)]

    def _value(self, message: Value, path: str, depth: int) -> JsonValue:
        match message.WhichOneof("kind"):
            case "null_value":
                return None
            case "bool_value":
                return message.bool_value
            case "number_value":
                return self._number(message.number_value, path)
            case "string_value":
                if not is_plain(message.string_value.translate(_LAYOUT)):
                    self._checks.violate(path, "must not contain control characters other than line breaks and tabs")
                return message.string_value
            case "struct_value":
                return self.object(message.struct_value, path, depth + 1)
            case "list_value":
                return self._array(message.list_value, path, depth + 1)
            case _:
                self._checks.violate(path, "must have a value")
                return None

    def _number(self, number: float, path: str) -> int | float:
        if not math.isfinite(number):
            self._checks.violate(path, "must be a finite number")
            return 0
        return int(number) if number.is_integer() and abs(number) <= _MAX_INTEGER else number

    def _too_much(self, path: str, depth: int) -> bool:
        if depth > MAX_DEPTH:
            self._checks.violate(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        elif self._keys > MAX_KEYS:
            self._checks.violate(path, f"must have at most {MAX_KEYS} keys in all")
        else:
            return False
        return True


def write_struct(values: JsonObject) -> Struct:
    """Return a Struct.

    Integers that a double cannot hold exactly are written as decimal text, so
    that none arrives as a different number.
    """
    struct = Struct()
    for key, value in values.items():
        _write(value, struct.fields[key])
    return struct


def _write(value: JsonValue, target: Value) -> None:
    if value is None:
        target.null_value = NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        target.string_value = str(value)
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, Mapping):
        target.struct_value.CopyFrom(write_struct(value))
    elif isinstance(value, list | tuple):
        target.list_value.Clear()
        target.list_value.SetInParent()
        for item in value:
            _write(item, target.list_value.values.add())
    else:
        raise TypeError(f"{type(value).__name__} is no JSON value")
