import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from broker.attest import base64url
from broker.attest.key_set import KeyProfile, KeySet, parse_key_set
from broker.errors import EvidenceInvalid
from tests.fixtures.clock import FakeClock
from tests.unit.attest.signing import ABSENT, ALGORITHMS, Signer, dumps, key_set, oidc_claims
from tests.unit.attest.support import Stage

OIDC = KeyProfile(use="sig")
SVID = KeyProfile(use="jwt-svid", needs_key_id=True)
GOOD = Signer("ES256", "good", number=50)


def _parse(*keys: Any, profile: KeyProfile = OIDC) -> KeySet:
    return parse_key_set(key_set(*keys), profile)


def _number(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8))


def _rsa(bits: int = 2048, exponent: int = 65537) -> dict[str, Any]:
    return {"kty": "RSA", "kid": "bad", "n": _number(2**bits - 2**700 - 1), "e": _number(exponent)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_are_bound_to_algorithms(tmp_path: Path, clock: FakeClock, algorithm: str) -> None:
    signer = Signer(algorithm)
    (key,) = _parse(signer).keys
    rsa_algorithms = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert key.algorithms == (rsa_algorithms if algorithm in rsa_algorithms else {algorithm})
    (narrowed,) = _parse({**signer.jwk, "alg": algorithm, "use": "sig", "key_ops": ["verify"]}).keys
    assert narrowed.algorithms == {algorithm}
    stage = Stage(tmp_path, clock, algorithms=[algorithm])
    stage.jwks.write_bytes(key_set(signer))
    stage.attestation.reload()
    assert stage.attest(signer.token(oidc_claims())).subject == "agent-7"


BAD_KEYS: dict[str, Any] = {
    "no object": 7,
    "null": None,
    "empty": {},
    "kty unknown": {**GOOD.jwk, "kty": "XX"},
    "kty symmetric": {"kty": "oct", "k": "AAAA", "kid": "bad"},
    "kty of the wrong type": {**GOOD.jwk, "kty": ["EC"]},
    "use for encryption": {**GOOD.jwk, "use": "enc"},
    "use of the wrong type": {**GOOD.jwk, "use": ["sig"]},
    "use null": {**GOOD.jwk, "use": None},
    "operations without verify": {**GOOD.jwk, "key_ops": ["sign"]},
    "operations of the wrong type": {**GOOD.jwk, "key_ops": "verify"},
    "alg of another type": {**GOOD.jwk, "alg": "RS256"},
    "alg of another curve": {**GOOD.jwk, "alg": "ES384"},
    "alg symmetric": {**GOOD.jwk, "alg": "HS256"},
    "alg none": {**GOOD.jwk, "alg": "none"},
    "alg null": {**GOOD.jwk, "alg": None},
    "kid of the wrong type": {**GOOD.jwk, "kid": 7},
    "kid null": {**GOOD.jwk, "kid": None},
    "kid empty": {**GOOD.jwk, "kid": ""},
    "kid long": {**GOOD.jwk, "kid": "k" * 257},
    "kid with NUL": {**GOOD.jwk, "kid": "a\0"},
    "kid with a lone surrogate": {**GOOD.jwk, "kid": "\ud800"},
    "private": {**GOOD.jwk, "d": GOOD.jwk["x"]},
    "no x": {name: value for name, value in GOOD.jwk.items() if name != "x"},
    "x of the wrong type": {**GOOD.jwk, "x": 7},
    "x with padding": {**GOOD.jwk, "x": GOOD.jwk["x"] + "="},
    "x with stray characters": {**GOOD.jwk, "x": GOOD.jwk["x"] + "!"},
    "x too short": {**GOOD.jwk, "x": "AAAA"},
    "point not on the curve": {**GOOD.jwk, "y": GOOD.jwk["x"]},
    "curve of another key": {**GOOD.jwk, "crv": "P-384"},
    "curve unknown": {**GOOD.jwk, "crv": "P-192"},
    "curve of Bitcoin": {
        **ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True),
        "kid": "bad",
    },
    "Ed448": {**OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True), "kid": "bad"},
    "Ed25519 too short": {**Signer("EdDSA", "bad").jwk, "x": "AAAA"},
    "RSA of 1024 bits": {
        **RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True),
        "kid": "bad",
    },
    "RSA of 2047 bits": _rsa(2047),
    "RSA of 8193 bits": _rsa(8193),
    "RSA exponent 1": _rsa(exponent=1),
    "RSA exponent 3": _rsa(exponent=3),
    "RSA exponent huge": _rsa(exponent=2**32 + 1),
    "RSA exponent even": _rsa(exponent=65538),
    "RSA from a weak generator": {**_rsa(), "n": _number(65537**130)},
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_key_is_left_out_and_the_others_work(bad: Any) -> None:
    keys = _parse(bad, GOOD, bad)
    assert [key.key_id for key in keys.keys] == ["good"]
    assert len(keys.ignored) == 2
    assert keys.select("good") is keys.select(None)


def test_weak_generator_is_what_makes_that_key_bad() -> None:
    """So that the case above is about the fingerprint and not about the size."""
    modulus = 65537**130
    assert 2048 <= modulus.bit_length() <= 8192
    assert "ROCA" in _parse({**_rsa(), "n": _number(modulus)}).ignored[0]
    assert _parse({**_rsa(), "n": _number(modulus + 2)}).ignored == ()


def test_key_with_a_member_twice() -> None:
    twice = json.dumps(Signer("ES256", "bad").jwk).replace('"kid"', '"kid": "other", "kid"')
    keys = parse_key_set(f'{{"keys": [{twice}, {json.dumps(GOOD.jwk)}]}}'.encode(), OIDC)
    assert [key.key_id for key in keys.keys] == ["good"]


def test_keys_that_share_a_name() -> None:
    keys = _parse(Signer("ES256", "same"), Signer("ES384", "same"), GOOD)
    assert [key.key_id for key in keys.keys] == ["good"]
    with pytest.raises(EvidenceInvalid, match="does not have"):
        keys.select("same")
    encryption = {**Signer("ES384", "good").jwk, "use": "enc"}
    assert _parse(encryption, GOOD).select("good").algorithms == {"ES256"}, "a key for another use is no rival"


def test_token_must_name_its_key_among_several() -> None:
    keys = _parse(GOOD, Signer("ES384", "other"))
    with pytest.raises(EvidenceInvalid, match="names no key"):
        keys.select(None)
    assert keys.select("other").algorithms == {"ES384"}


def test_key_without_a_name() -> None:
    nameless = Signer("ES256", None)
    keys = _parse(nameless)
    assert keys.select(None).key_id is None
    with pytest.raises(EvidenceInvalid, match="does not have"):
        keys.select("k1")
    with pytest.raises(EvidenceInvalid, match="its issuer has 2"):
        _parse(nameless, GOOD).select(None)


def test_token_without_kid(stage: Stage) -> None:
    assert stage.attest(stage.signer.token(oidc_claims(), kid=ABSENT)).subject == "agent-7"
    stage.jwks.write_bytes(key_set(stage.signer, GOOD))
    stage.attestation.reload()
    stage.refuse(stage.signer.token(oidc_claims(), kid=ABSENT), "names no key")
    assert stage.attest(stage.signer.token(oidc_claims())).subject == "agent-7"


def test_bundle_of_a_trust_domain() -> None:
    keys = _parse(
        {**Signer("ES256", "svid").jwk, "use": "jwt-svid"},
        {**Signer("ES384", "tls").jwk, "use": "sig"},
        {**Signer("ES512", "x509").jwk, "use": "x509-svid", "x5c": ["AAAA"]},
        Signer("RS256", None),
        Signer("EdDSA", "unused"),
        profile=SVID,
    )
    assert [key.key_id for key in keys.keys] == ["svid", "unused"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not a JSON Web Key Set"),
        (b"{}", "not a JSON Web Key Set"),
        (b'{"keys": {}}', "not a JSON Web Key Set"),
        (b'{"keys": [], "keys": []}', "not a JSON Web Key Set"),
        (dumps({"keys": [{}] * 201}), "more than 200 keys"),
    ],
)
def test_what_is_no_key_set(data: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse_key_set(data, OIDC)


def test_signature_that_is_none(stage: Stage) -> None:
    head, _, _ = stage.signer.token(oidc_claims()).rpartition(".")
    for signature in (b"", b"\0", bytes(63), bytes(64), bytes(65), b"\xff" * 64):
        stage.refuse(f"{head}.{base64url.encode(signature)}", "signature does not verify")
