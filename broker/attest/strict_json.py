"""JSON from parties that nobody trusts yet: read strictly or not at all (RFC 8259, RFC 7493)."""

import json
import math
import re
from typing import Final, NoReturn

from broker.model import JsonValue

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 2000

_MAX_NUMBER_CHARS: Final = 40
_MAX_INTEGER: Final = 2**63 - 1
# Control characters, and surrogates that belong to no pair: PostgreSQL refuses
# NUL, no encoder takes surrogates, and logs must not be steered by the others.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_object(data: bytes) -> dict[str, JsonValue]:
    """Read one JSON object.

    Refused beyond what JSON itself refuses: duplicate members at any depth,
    control characters and lone surrogates in any name or text, integers of more
    than 64 bits, numbers that are not finite, more than `MAX_DEPTH` levels or
    `MAX_VALUES` values.

    Raises:
        ValueError: says what is wrong, without quoting the data.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at character {error.pos}") from None
    except RecursionError:
        raise ValueError(f"has more than {MAX_DEPTH} levels") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    _check_bounds(value)
    return value


def check_text(text: str) -> None:
    """Check that text holds no control characters and no lone surrogates.

    Raises:
        ValueError: when it does.
    """
    match = _FORBIDDEN.search(text)
    if match is not None:
        raise ValueError(f"holds the forbidden character U+{ord(match[0]):04X}")


def _check_bounds(root: JsonValue) -> None:
    pending: list[tuple[JsonValue, int]] = [(root, 1)]
    count = 0
    while pending:
        value, level = pending.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"has more than {MAX_VALUES} values")
        if isinstance(value, str):
            check_text(value)
        elif isinstance(value, dict | list):
            if level > MAX_DEPTH:
                raise ValueError(f"has more than {MAX_DEPTH} levels")
            if isinstance(value, dict):
                check_text("".join(value))
                value = list(value.values())
            pending.extend((item, level + 1) for item in value)


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("has a member twice in one object")
    return members


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("holds a number that is not finite")


def _integer(text: str) -> int:
    number = int(text) if len(text) <= _MAX_NUMBER_CHARS else _MAX_INTEGER + 1
    if abs(number) > _MAX_INTEGER:
        raise ValueError("holds an integer of more than 64 bits")
    return number


def _number(text: str) -> float:
    number = float(text) if len(text) <= _MAX_NUMBER_CHARS else math.inf
    if not math.isfinite(number):
        raise ValueError("holds a number that is out of range")
    return number
