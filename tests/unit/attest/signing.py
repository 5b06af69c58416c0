"""Issuers that tests control: keys, tokens and key sets, good and bad."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.attest import base64url
from broker.attest.algorithms import VERIFIERS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ISSUER = "https://issuer.example"
AUDIENCE = "credbroker"
TRUST_DOMAIN = "example.org"
WORKLOAD = f"spiffe://{TRUST_DOMAIN}/ns/agents/planner"
ABSENT: Any = object()
ALGORITHMS = tuple(VERIFIERS)


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """The same number gives the same key within one run."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        curves: dict[str, ec.EllipticCurve] = {
            "ES256": ec.SECP256R1(),
            "ES384": ec.SECP384R1(),
            "ES512": ec.SECP521R1(),
        }
        return ec.generate_private_key(curves[algorithm])
    return _rsa_key(number)


@cache
def _rsa_key(_number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Signer:
    """One key of an issuer."""

    algorithm: str = "ES256"
    kid: str | None = "k1"
    number: int = 0

    @property
    def jwk(self) -> dict[str, Any]:
        """Its public key; nothing but what the key's type needs, and the kid."""
        public = private_key(self.algorithm, self.number).public_key()
        jwk = dict(type(VERIFIERS[self.algorithm]).to_jwk(public, as_dict=True))
        jwk.pop("key_ops", None)
        return jwk if self.kid is None else {**jwk, "kid": self.kid}

    def signature(self, data: bytes) -> bytes:
        return VERIFIERS[self.algorithm].sign(data, private_key(self.algorithm, self.number))

    def compact(self, header: bytes, payload: bytes) -> str:
        """Sign whatever it is."""
        signing_input = f"{base64url.encode(header)}.{base64url.encode(payload)}"
        return f"{signing_input}.{base64url.encode(self.signature(signing_input.encode()))}"

    def token(self, claims: Mapping[str, Any], **header: Any) -> str:
        """Sign claims; header parameters given replace the usual ones, ABSENT removes them."""
        usual = {"alg": self.algorithm, "kid": ABSENT if self.kid is None else self.kid, "typ": "JWT"}
        return self.compact(dumps({**usual, **header}), dumps(claims))


def dumps(members: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not ABSENT}).encode()


def key_set(*keys: Signer | dict[str, Any]) -> bytes:
    return json.dumps({"keys": [key.jwk if isinstance(key, Signer) else key for key in keys]}).encode()


def seconds(moment: datetime = NOW, **delta: float) -> int:
    return int((moment + timedelta(**delta)).timestamp())


def oidc_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token; changes replace them, ABSENT removes them."""
    usual = {
        "iss": ISSUER,
        "sub": "agent-7",
        "aud": AUDIENCE,
        "iat": seconds(minutes=-1),
        "exp": seconds(hours=1),
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not ABSENT}


def svid_claims(**changes: Any) -> dict[str, Any]:
    return oidc_claims(**{"iss": ABSENT, "sub": WORKLOAD, **changes})
