"""Signed tokens (RFC 7519): before and after their signature was verified, as two types."""

from collections.abc import Collection
from dataclasses import dataclass, field

from broker.attest.jwk import VerificationKey
from broker.attest.jws import UnverifiedJws, parse_jws, parse_part
from broker.errors import EvidenceInvalid
from broker.model import JsonObject


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token that anybody may have written.

    Attributes:
        jws: Its envelope.
        unverified_claims: What it claims; good for finding out whose keys to
            try, and for nothing else.
        digest: SHA-256 of the whole token.
    """

    jws: UnverifiedJws
    unverified_claims: JsonObject = field(repr=False)
    digest: bytes


@dataclass(frozen=True, slots=True)
class VerifiedClaims:
    """What a token's issuer has signed. Only `verify_token` makes these."""

    values: JsonObject


def parse_token(text: str, digest: bytes) -> UnverifiedToken:
    """Read a token.

    Raises:
        EvidenceInvalid: when it is not well formed.
    """
    jws = parse_jws(text)
    return UnverifiedToken(jws, parse_part("payload", jws.payload), digest)


def verify_jws(jws: UnverifiedJws, key: VerificationKey, algorithms: Collection[str]) -> None:
    """Verify the signature over a token's header and payload.

    Args:
        jws: The token's envelope.
        key: The issuer's key that the token names.
        algorithms: Those that the configuration allows.

    Raises:
        EvidenceInvalid: when the algorithm is not allowed or not the key's, or
            the signature does not verify.
    """
    if jws.algorithm not in algorithms:
        raise EvidenceInvalid(f"the token's alg is not allowed, {jws.algorithm[:20]!a}")
    key.verify(jws.algorithm, jws.signing_input, jws.signature)


def verify_token(token: UnverifiedToken, key: VerificationKey, algorithms: Collection[str]) -> VerifiedClaims:
    """Verify a token's signature and return what it claims.

    Raises:
        EvidenceInvalid: as `verify_jws` does.
    """
    verify_jws(token.jws, key, algorithms)
    return VerifiedClaims(token.unverified_claims)
