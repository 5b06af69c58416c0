"""Bounds of the values that agents send, checked before anything else looks at them."""

import re
from collections.abc import Iterator
from typing import Final

from broker.errors import FieldViolation
from broker.model import JsonObject, JsonValue

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 256
MAX_CHARS: Final = 1024
MAX_TOTAL_CHARS: Final = 16 * 1024
MAX_KEY_CHARS: Final = 128
# What every JSON implementation, and every double, holds exactly (RFC 7493, section 2.2).
MAX_NUMBER: Final = 2**53 - 1

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def find_excess(parameters: JsonObject) -> FieldViolation | None:
    """Return the first value that is beyond a bound, or None.

    The path names keys, which the agent chose, only where they are plain.
    """
    values, chars = 1, 0
    pending: list[tuple[str, int, JsonValue]] = [("parameters", 1, dict(parameters))]
    while pending:
        path, depth, value = pending.pop()
        values += len(value) if isinstance(value, list | dict) else 0
        chars += len(value) if isinstance(value, str) else 0
        if values > MAX_VALUES or chars > MAX_TOTAL_CHARS:
            whole = f"must have at most {MAX_VALUES} values and {MAX_TOTAL_CHARS} characters in all"
            return FieldViolation("parameters", whole)
        problem = _problem(value, depth)
        if problem:
            return FieldViolation(path, problem)
        if isinstance(value, list | dict):
            pending += [(f"{path}{step(key)}", depth + 1, item) for key, item in _items(value)]
    return None


def step(key: str | int) -> str:
    """Return one step of a path; a key that is not plain is not repeated."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else ".?"


def is_deeper_than(depth: int, value: JsonValue) -> bool:
    """Tell whether lists and objects are nested more than ``depth`` levels."""
    level = [value]
    for _ in range(depth + 1):
        level = [item for outer in level if isinstance(outer, list | dict) for _, item in _items(outer)]
        if not level:
            return False
    return True


def _items(value: "list[JsonValue] | dict[str, JsonValue]") -> "Iterator[tuple[str | int, JsonValue]]":
    yield from enumerate(value) if isinstance(value, list) else value.items()


def _problem(value: JsonValue, depth: int) -> str:
    """Say what was expected of one value by itself; empty when it is within bounds."""
    if isinstance(value, str):
        return "" if _is_text(value, MAX_CHARS) else f"must be text of at most {MAX_CHARS} characters, without NUL"
    if isinstance(value, int | float):
        return "" if -MAX_NUMBER <= value <= MAX_NUMBER else f"must be a number between -{MAX_NUMBER} and {MAX_NUMBER}"
    if depth > MAX_DEPTH and isinstance(value, list | dict):
        return f"must not be nested more than {MAX_DEPTH} levels deep"
    if isinstance(value, dict) and not all(_is_text(key, MAX_KEY_CHARS) for key in value):
        return f"must have names of at most {MAX_KEY_CHARS} characters, without NUL"
    return ""


def _is_text(text: str, most: int) -> bool:
    """Tell whether a database and Vault can hold it: no NUL, no lone surrogate."""
    return len(text) <= most and "\0" not in text and (text.isascii() or _is_encodable(text))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
