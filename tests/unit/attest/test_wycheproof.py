"""Project Wycheproof's vectors for JWS and JWK, and vectors of the same nature made here.

The public vectors are read from ``../shared/vectors/wycheproof`` next to the
repository. Where that folder does not exist, the vectors made here remain.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.attest import base64url
from broker.attest.algorithms import VERIFIERS
from broker.attest.jws import parse_jws
from broker.attest.key_set import KeyProfile, parse_key_set
from broker.attest.token import verify_jws
from broker.errors import EvidenceInvalid
from tests.unit.attest.signing import ALGORITHMS, Signer, dumps, key_set

ROOT = Path(__file__).parents[3]
VECTORS = ROOT.parent / "shared" / "vectors" / "wycheproof"


def _public_vectors() -> Iterator[Any]:
    for file in sorted(VECTORS.glob("json_web_*_test.json")):
        for group in json.loads(file.read_text())["testGroups"]:
            keys = group.get("public") or group["private"]
            keys = keys if "keys" in keys else {"keys": [keys]}
            for test in group["tests"]:
                accepted = test["result"] == "valid" and _is_for_us(keys["keys"], test["jws"])
                name = f"{file.stem}-{test['tcId']}-{test['comment']}"
                yield pytest.param(json.dumps(keys).encode(), test["jws"], accepted, id=name)


def _is_for_us(keys: list[dict[str, Any]], token: str) -> bool:
    """Symmetric keys are never usable here, and a key's alg is binding, also where the vectors overlook it."""
    if any("k" in key for key in keys):
        return False
    algorithm = json.loads(base64url.decode(token.split(".")[0]))["alg"]
    return all(key["alg"] == algorithm for key in keys)


def _own_vectors() -> Iterator[Any]:
    for algorithm in ALGORITHMS:
        signer = Signer(algorithm)
        good = signer.compact(dumps({"alg": algorithm, "kid": "k1"}), b"foo")
        head, _, signature = good.rpartition(".")
        raw = base64url.decode(signature)
        keys = key_set(signer)
        own = {
            "valid": (good, True),
            "modified signature": (f"{head}.{base64url.encode(bytes([raw[0] ^ 1]) + raw[1:])}", False),
            "missing signature": (f"{head}.", False),
            "missing signature and separator": (head, False),
            "truncated signature": (f"{head}.{base64url.encode(raw[:-1])}", False),
            "zeros appended": (f"{head}.{base64url.encode(raw + bytes(1))}", False),
            "zeros prepended": (f"{head}.{base64url.encode(bytes(1) + raw)}", False),
            "all zeros": (f"{head}.{base64url.encode(bytes(len(raw)))}", False),
            "all ones": (f"{head}.{base64url.encode(bytes([255]) * len(raw))}", False),
            "empty payload": (f"{head.split('.')[0]}..{signature}", False),
            "extra component": (f"{good}.foo", False),
            "other payload": (f"{head.split('.')[0]}.{base64url.encode(b'bar')}.{signature}", False),
        }
        for name, (token, accepted) in own.items():
            yield pytest.param(keys, token, accepted, id=f"own-{algorithm}-{name}")
        for name, change in _bad_keys(signer).items():
            yield pytest.param(key_set(*change), good, False, id=f"own-{algorithm}-{name}")


def _bad_keys(signer: Signer) -> dict[str, list[dict[str, Any]]]:
    return {
        "for encryption": [{**signer.jwk, "use": "enc"}],
        "for other operations": [{**signer.jwk, "key_ops": ["encrypt"]}],
        "of another algorithm": [{**signer.jwk, "alg": "ES224"}],
        "of another type": [{**signer.jwk, "kty": "oct"}],
        "with private members": [{**signer.jwk, "d": "AAAA"}],
        "twice": [signer.jwk, signer.jwk],
    }


@pytest.mark.parametrize(("keys", "token", "accepted"), [*_public_vectors(), *_own_vectors()])
def test_vector(keys: bytes, token: str, accepted: bool) -> None:
    def verify() -> None:
        jws = parse_jws(token)
        verify_jws(jws, parse_key_set(keys, KeyProfile(use="sig")).select(jws.key_id), VERIFIERS.keys())

    if accepted:
        verify()
    else:
        with pytest.raises(EvidenceInvalid):
            verify()


def test_vectors_of_both_kinds_are_there() -> None:
    outcomes = [case.values[2] for case in [*_public_vectors(), *_own_vectors()]]
    assert outcomes.count(True) >= len(ALGORITHMS)
    assert outcomes.count(False) > 5 * len(ALGORITHMS)
