"""Reading Vault's JSON: nothing is believed to be there, and no error text is passed on as it came."""

import re
from collections.abc import Mapping

from pydantic_core import from_json

from broker.errors import MintFailed, VaultAway, VaultUnavailable
from broker.model import JsonValue

HEADER_TEXT = re.compile(r"[\x21-\x7e]{1,8192}")

# 408 timed out, 412 not replicated yet, 429 too many requests, 472 and 473 standby.
_IN_DOUBT = frozenset((408, 412, 429, 472, 473))
# Said before a request is looked at: too many requests, and standby.
_TURNED_AWAY = frozenset((429, 472, 473))
# The same with status 503. Inside a longer text, they may come from the middle of a request.
_CLOSED_DOORS = frozenset(
    (
        ("Vault is sealed",),
        ("Vault is in standby mode",),
        ("local node not active but active cluster node not found",),
    )
)
_MAX_TEXTS = 5
_MAX_TEXT = 300
# Service, batch and recovery tokens of OpenBao and Vault, old form and new.
_TOKEN_LIKE = re.compile(r"\b(?:hv)?[sbr]\.[A-Za-z0-9_-]{20,}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


class VaultRefused(MintFailed):
    """Vault answered and refused: it did nothing.

    Attributes:
        status: HTTP status.
        errors: Vault's own words, shortened and without tokens.
    """

    def __init__(self, request: str, status: int, errors: tuple[str, ...]) -> None:
        self.status = status
        self.errors = errors
        super().__init__(f"Vault refused {request} with status {status}: {'; '.join(errors) or 'no reason given'}")

    def says(self, words: str) -> bool:
        """Return whether one of Vault's errors holds these words."""
        return any(words in error for error in self.errors)


def parse_object(raw: bytes) -> dict[str, JsonValue] | None:
    """Return the JSON object in a reply; None when it is anything else."""
    try:
        # Of the strings, none but names are kept for the next reply: values are secrets.
        value = from_json(raw, cache_strings="keys")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def errors_of(body: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return Vault's error texts, shortened, printable and without tokens."""
    errors = body.get("errors")
    texts = [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
    return tuple(_clean(text) for text in texts[:_MAX_TEXTS])


def section(body: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    """Return a nested object; an empty one when it is not there."""
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def text(body: Mapping[str, JsonValue], name: str) -> str | None:
    """Return a text that is not empty, or None."""
    value = body.get(name)
    return value if isinstance(value, str) and value else None


def whole_seconds(body: Mapping[str, JsonValue], name: str) -> int | None:
    """Return a duration in seconds, or None when it is no number above zero."""
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def printable_text(body: Mapping[str, JsonValue], name: str) -> str | None:
    """Return a text that can stand in an HTTP header, or None."""
    value = text(body, name)
    return value if value is not None and HEADER_TEXT.fullmatch(value) else None


def problem_of(status: int, body: Mapping[str, JsonValue], request: str) -> VaultRefused | VaultUnavailable | None:
    """Return what is wrong with an answer, or None.

    Only Vault's own words on a client error make a refusal, and only its own
    words that it is not at work say that it did nothing. Everything else that
    is no success leaves open whether Vault acted.
    """
    if 200 <= status < 300 and not body.get("errors"):
        return None
    own_words, texts = isinstance(body.get("errors"), list), errors_of(body)
    if 400 <= status < 500 and status not in _IN_DOUBT and own_words:
        return VaultRefused(request, status, texts)
    away = own_words and (status in _TURNED_AWAY or (status == 503 and texts in _CLOSED_DOORS))
    kind = VaultAway if away else VaultUnavailable
    return kind(f"{request}: status {status}: {'; '.join(texts) or 'no reason given'}")


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub(" ", _TOKEN_LIKE.sub("***", text))[:_MAX_TEXT].strip()
