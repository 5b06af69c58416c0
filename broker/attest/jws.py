"""Compact JWS (RFC 7515): reading it strictly, before anything about it is believed."""

from dataclasses import dataclass, field
from typing import Final

from broker.attest import base64url
from broker.attest.strict_json import parse_object
from broker.errors import EvidenceInvalid
from broker.model import JsonObject, JsonValue

MAX_TOKEN_CHARS: Final = 16 * 1024
MAX_HEADER_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed JWS whose signature nobody has looked at.

    Of its header, ``alg`` and ``kid`` choose among configured keys and
    algorithms, ``typ`` is for the attestor to check, ``crit`` and ``b64`` are
    refused. Everything else is never read, above all the key material that a
    token can bring along: ``jwk``, ``jku``, ``x5c``, ``x5u``, ``x5t``.

    Attributes:
        algorithm: ``alg`` as claimed.
        key_id: ``kid`` as claimed.
        type: ``typ`` as claimed, in lower case since media types have no case.
        header_names: The names of all header parameters.
        payload: What was signed, if it was.
    """

    algorithm: str
    key_id: str | None
    type: str | None
    header_names: frozenset[str]
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_jws(text: str) -> UnverifiedJws:
    """Read a JWS in compact serialization.

    Raises:
        EvidenceInvalid: when it is not well formed.
    """
    if len(text) > MAX_TOKEN_CHARS:
        raise EvidenceInvalid(f"the token is longer than {MAX_TOKEN_CHARS} characters")
    segments = text.split(".")
    if len(segments) != 3:
        raise EvidenceInvalid("the token does not have three segments")
    raw_header, payload, signature = (
        _decode(name, segment) for name, segment in zip(("header", "payload", "signature"), segments, strict=True)
    )
    header = parse_part("header", raw_header)
    for name in ("crit", "b64"):
        if name in header:
            raise EvidenceInvalid(f"the token's header has {name}, which is not supported")
    algorithm = _text(header, "alg")
    if algorithm is None:
        raise EvidenceInvalid("the token's header has no alg")
    kind = _text(header, "typ")
    return UnverifiedJws(
        algorithm=algorithm,
        key_id=_text(header, "kid"),
        type=None if kind is None else kind.lower(),
        header_names=frozenset(header),
        payload=payload,
        signing_input=text[: text.rindex(".")].encode("ascii"),
        signature=signature,
    )


def parse_part(name: str, data: bytes) -> dict[str, JsonValue]:
    """Read the JSON object in one part of a token.

    Raises:
        EvidenceInvalid: when it cannot be read.
    """
    try:
        return parse_object(data)
    except ValueError as error:
        raise EvidenceInvalid(f"the token's {name} {error}") from None


def _decode(name: str, segment: str) -> bytes:
    try:
        return base64url.decode(segment)
    except ValueError as error:
        raise EvidenceInvalid(f"the token's {name} {error}") from None


def _text(header: JsonObject, name: str) -> str | None:
    value = header.get(name)
    if value is None and name not in header:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_HEADER_CHARS:
        raise EvidenceInvalid(f"the token's {name} header is not text of 1 to {MAX_HEADER_CHARS} characters")
    return value
