"""JSON Web Key Sets (RFC 7517, section 5) as issuers publish them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.attest.jwk import VerificationKey, parse_key
from broker.errors import EvidenceInvalid
from broker.model import JsonValue

MAX_KEYS: Final = 200


@dataclass(frozen=True, slots=True)
class KeyProfile:
    """Which keys of a set count.

    Attributes:
        use: What a key's ``use`` must be when it has one.
        needs_key_id: Whether a key without ``kid`` is unusable.
    """

    use: str
    needs_key_id: bool = False


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer.

    Attributes:
        keys: No two have the same ``kid``.
        ignored: Why the others are not usable, for operators.
    """

    keys: tuple[VerificationKey, ...]
    ignored: tuple[str, ...]

    def __contains__(self, key_id: str) -> bool:
        return any(key.key_id == key_id for key in self.keys)

    def select(self, key_id: str | None) -> VerificationKey:
        """Return the one key that a token names; without a name, the only key.

        Raises:
            EvidenceInvalid: when no key is named and there is not exactly one,
                or when none has this name.
        """
        if key_id is None:
            if len(self.keys) != 1:
                raise EvidenceInvalid(f"the token names no key (kid), and its issuer has {len(self.keys)}")
            return self.keys[0]
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise EvidenceInvalid(f"the token names a key (kid) that its issuer does not have, {key_id[:100]!a}")


def parse_key_set(data: bytes, profile: KeyProfile) -> KeySet:
    """Read a key set, leaving out every key that cannot be used.

    Keys that share a ``kid`` are all left out: which one was meant is a guess.

    Raises:
        ValueError: when it is no key set at all.
    """
    usable: list[VerificationKey] = []
    ignored: list[str] = []
    for index, jwk in enumerate(_entries(data)):
        try:
            usable.append(_parse_entry(jwk, profile))
        except ValueError as error:
            ignored.append(f"key {index} {error}")
    counts = Counter(key.key_id for key in usable)
    keys = tuple(key for key in usable if counts[key.key_id] == 1)
    if len(keys) < len(usable):
        ignored.append(f"{len(usable) - len(keys)} keys share a kid, or have none")
    return KeySet(keys, tuple(ignored))


def _parse_entry(jwk: JsonValue, profile: KeyProfile) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise ValueError("is not an object without duplicate members")
    key = parse_key(jwk, profile.use)
    if profile.needs_key_id and key.key_id is None:
        raise ValueError("has no kid")
    return key


def _entries(data: bytes) -> Sequence[JsonValue]:
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_or_none)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("is not a JSON Web Key Set")
    if len(entries) > MAX_KEYS:
        raise ValueError(f"has more than {MAX_KEYS} keys")
    return entries


def _unique_or_none(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue] | None:
    """Turn an object with duplicate members into nothing, so that it spoils only itself."""
    members = dict(pairs)
    return members if len(members) == len(pairs) else None
