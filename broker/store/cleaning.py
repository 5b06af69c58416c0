"""Makes text storable that comes from outside and must not be lost."""

import json
import math
import re
from contextlib import suppress
from typing import Final

from broker.model import JsonValue
from broker.store.columns import INDEXED_BYTES, UNSTORABLE, storable

MAX_CHARACTERS: Final = 8192

_ENCODER = json.JSONEncoder(allow_nan=False)
_CUT = "…"
_ESCAPED = re.compile(r"\\u(0000|d[89a-f])")


def clean(text: str) -> str:
    r"""Return text with NUL and lone surrogates written as ``\u0000``, cut where it is too long."""
    if len(text) <= MAX_CHARACTERS and storable(text):
        return text
    cleaned = _escape(text[: MAX_CHARACTERS + 1])
    return cleaned if len(cleaned) <= MAX_CHARACTERS else cleaned[: MAX_CHARACTERS - len(_CUT)] + _CUT


def clean_key(text: str) -> str:
    """Return text that also fits into an index."""
    cleaned = clean(text)
    if len(cleaned.encode()) <= INDEXED_BYTES:
        return cleaned
    return cleaned.encode()[: INDEXED_BYTES - len(_CUT.encode())].decode(errors="ignore") + _CUT


def clean_json(value: JsonValue) -> JsonValue:
    """Return a JSON value without what JSON or a database cannot hold."""
    with suppress(ValueError):
        # Characters that take two surrogates are escaped alike, and go the longer way for nothing.
        if _ESCAPED.search(_ENCODER.encode(value)) is None:
            return value
    return _cleaned(value)


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(_cleaned(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value


def _escape(text: str) -> str:
    return UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
