"""One JSON Web Key (RFC 7517, RFC 7518, RFC 8037), as a key to verify with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from broker.attest import base64url
from broker.attest.algorithms import VERIFIERS, PublicKey, algorithms_of
from broker.attest.strict_json import check_text
from broker.errors import EvidenceInvalid
from broker.model import JsonObject

MAX_KEY_ID_CHARS: Final = 256
RSA_BITS: Final = range(2048, 8192 + 1)
MIN_RSA_EXPONENT: Final = 65537

# Members of private and symmetric keys (RFC 7518, section 6). A private key
# that is published is nobody's secret any more.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# Primes modulo which 65537 generates few numbers.
_ROCA_PRIMES: Final = (
    11,
    13,
    17,
    19,
    37,
    53,
    61,
    71,
    73,
    79,
    97,
    103,
    107,
    109,
    127,
    151,
    157,
    181,
    229,
    233,
    239,
    241,
)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key with the algorithms it may be used with.

    Attributes:
        key_id: Its ``kid``.
        algorithms: By its type and curve, narrowed to its ``alg`` when it has one.
    """

    key_id: str | None
    algorithms: frozenset[str]
    key: PublicKey

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> None:
        """Verify a signature.

        Raises:
            EvidenceInvalid: when it is not this key's, or the algorithm is not
                one that the key is bound to.
        """
        if algorithm not in self.algorithms:
            raise EvidenceInvalid(f"the key is not bound to the algorithm that the token names, {algorithm[:20]!a}")
        if not VERIFIERS[algorithm].verify(message, self.key, signature):
            raise EvidenceInvalid("the signature does not verify")


def parse_key(jwk: JsonObject, use: str) -> VerificationKey:
    """Read a public key for verifying signatures.

    ``kty``, ``kid``, ``use``, ``key_ops``, ``alg`` and the public members of
    the key's type are checked; all else is never read (``x5c`` and ``x5u``
    among it: trust comes from where the key set does).

    Args:
        jwk: The key.
        use: What ``use`` must be when it is given.

    Raises:
        ValueError: when it cannot be used; says why.
    """
    if not _PRIVATE.isdisjoint(jwk):
        raise ValueError("has private members")
    if jwk.get("use", use) != use:
        raise ValueError("is for another use")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("is for other operations")
    key = _import(jwk)
    algorithms = algorithms_of(key)
    if "alg" in jwk:
        algorithms &= {str(jwk["alg"])}
    if not algorithms:
        raise ValueError("has an alg that does not belong to its type")
    return VerificationKey(_key_id(jwk), algorithms, key)


def _key_id(jwk: JsonObject) -> str | None:
    if "kid" not in jwk:
        return None
    key_id = jwk["kid"]
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARS:
        raise ValueError(f"has a kid that is not text of 1 to {MAX_KEY_ID_CHARS} characters")
    check_text(key_id)
    return key_id


def _import(jwk: JsonObject) -> PublicKey:
    importer = _IMPORTERS.get(str(jwk.get("kty")))
    if importer is None:
        raise ValueError("has a kty that is not supported")
    try:
        return importer(jwk)
    except (InvalidKeyError, UnsupportedAlgorithm) as error:
        raise ValueError(f"cannot be read: {error}") from None


def _import_rsa(jwk: JsonObject) -> PublicKey:
    members = _members(jwk, "n", "e")
    modulus, exponent = (int.from_bytes(base64url.decode(members[name])) for name in ("n", "e"))
    if modulus.bit_length() not in RSA_BITS:
        raise ValueError(f"is an RSA key of {modulus.bit_length()} bits")
    if not MIN_RSA_EXPONENT <= exponent < 2**32:
        raise ValueError("is an RSA key with an unusual public exponent")
    if _has_roca_fingerprint(modulus):
        raise ValueError("is an RSA key with the ROCA weakness")
    return cast("PublicKey", RSAAlgorithm.from_jwk({"kty": "RSA", **members}))


def _import_ec(jwk: JsonObject) -> PublicKey:
    if jwk.get("crv") not in ("P-256", "P-384", "P-521"):
        raise ValueError("has a curve that is not supported")
    return cast("PublicKey", ECAlgorithm.from_jwk({"kty": "EC", "crv": jwk["crv"], **_members(jwk, "x", "y")}))


def _import_okp(jwk: JsonObject) -> PublicKey:
    if jwk.get("crv") != "Ed25519":
        raise ValueError("has a curve that is not supported")
    return cast("PublicKey", OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", **_members(jwk, "x")}))


_IMPORTERS: Final[Mapping[str, Callable[[JsonObject], PublicKey]]] = {
    "RSA": _import_rsa,
    "EC": _import_ec,
    "OKP": _import_okp,
}


def _members(jwk: JsonObject, *names: str) -> dict[str, str]:
    """Return members that are canonical base64url; the importers would overlook stray characters."""
    members = {}
    for name in names:
        value = jwk.get(name)
        if not isinstance(value, str):
            raise ValueError(f"has no {name}")
        base64url.decode(value)
        members[name] = value
    return members


def _has_roca_fingerprint(modulus: int) -> bool:
    """Tell whether a modulus comes from the generator of CVE-2017-15361.

    Such a modulus is a power of 65537 modulo every small prime ("The Return of
    Coppersmith's Attack", section 2); others are so with a chance below 2**-40.
    """
    return all(modulus % prime in residues for prime, residues in _roca_residues().items())


@cache
def _roca_residues() -> dict[int, frozenset[int]]:
    return {prime: frozenset(pow(65537, power, prime) for power in range(prime)) for prime in _ROCA_PRIMES}
