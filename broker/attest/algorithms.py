"""The signature algorithms that are accepted: asymmetric ones, each bound to one kind of key."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

# RFC 7518, sections 3.3 to 3.5: what JWT-SVID, section 2.1, allows.
SvidAlgorithmName = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
AlgorithmName = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

VERIFIERS: Final[Mapping[str, Algorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, SECP256R1),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384, SECP384R1),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512, SECP521R1),
    "EdDSA": OKPAlgorithm(),
}

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, frozenset[str]]] = {
    SECP256R1.name: frozenset({"ES256"}),
    SECP384R1.name: frozenset({"ES384"}),
    SECP521R1.name: frozenset({"ES512"}),
}


def algorithms_of(key: PublicKey) -> frozenset[str]:
    """Return the algorithms that a key may be used with."""
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return _CURVES[key.curve.name]
    return frozenset({"EdDSA"})
