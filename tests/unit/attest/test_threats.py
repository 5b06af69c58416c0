"""The known attacks on evidence, each tried against the whole stage."""

import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.attest import Attestation, base64url
from broker.attest.evidence import Evidence
from broker.errors import EvidenceExpired, EvidenceInvalid
from tests.fixtures.clock import FakeClock
from tests.unit.attest.authority import Authority, uri, usage
from tests.unit.attest.signing import (
    ABSENT,
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    NOW,
    TRUST_DOMAIN,
    WORKLOAD,
    Signer,
    dumps,
    key_set,
    oidc_claims,
    private_key,
    seconds,
    svid_claims,
)
from tests.unit.attest.support import Stage, bearer, entry, finish, peer

# 1. alg none, and the public key as a symmetric one


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signed", [False, True])
def test_no_algorithm(stage: Stage, algorithm: str, signed: bool) -> None:
    token = stage.signer.token(oidc_claims(), alg=algorithm)
    stage.refuse(token if signed else token[: token.rindex(".") + 1], "alg")


def _public_key_encodings() -> list[bytes]:
    public = private_key("ES256").public_key()
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(Signer().jwk).encode(),
        base64url.decode(Signer().jwk["x"]),
    ]


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("encoding", range(7))
def test_public_key_as_secret(stage: Stage, algorithm: str, encoding: int) -> None:
    signing_input = (
        base64url.encode(dumps({"alg": algorithm, "kid": "k1"})) + "." + base64url.encode(dumps(oidc_claims()))
    )
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    mac = hmac.new(_public_key_encodings()[encoding], signing_input.encode(), digest).digest()
    stage.refuse(f"{signing_input}.{base64url.encode(mac)}", "alg is not allowed")


# 2. An allowed algorithm that is not the key's


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "ES256"])
def test_algorithm_of_another_key_type(tmp_path: Path, clock: FakeClock, algorithm: str) -> None:
    stage = Stage(tmp_path, clock, algorithms=list(ALGORITHMS))
    stage.refuse(stage.signer.token(oidc_claims(), alg=algorithm), "not bound to the algorithm")


def test_algorithm_that_the_key_excludes(tmp_path: Path, clock: FakeClock) -> None:
    signer = Signer("PS256")
    stage = Stage(tmp_path, clock, algorithms=["RS256", "PS256"])
    stage.jwks.write_bytes(key_set({**signer.jwk, "alg": "RS256"}))
    stage.attestation.reload()
    stage.refuse(signer.token(oidc_claims()), "not bound to the algorithm")
    assert stage.attest(Signer("RS256").token(oidc_claims())).subject == "agent-7"


def test_algorithm_that_the_configuration_excludes(tmp_path: Path, clock: FakeClock) -> None:
    stage = Stage(tmp_path, clock, algorithms=["RS256"])
    stage.refuse(stage.signer.token(oidc_claims()), "alg is not allowed")


# 3. Key material inside the token


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": Signer(number=9).jwk},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "http://127.0.0.1:9/chain"},
        {"x5c": ["AAAA"], "x5t": "AAAA", "x5t#S256": "AAAA"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_key_material_in_the_token(stage: Stage, header: dict[str, Any]) -> None:
    attacker = Signer("ES384", "k1")
    stage.refuse(attacker.token(oidc_claims(), **header), "alg is not allowed")
    # `finish` proves that nothing was waited for, so nothing was fetched either.
    stage.refuse(attacker.token(oidc_claims(), alg="ES256", **header), "signature does not verify")
    assert stage.attest(stage.signer.token(oidc_claims(), **header)).subject == "agent-7"
    stage.refuse(stage.svid_signer.token(svid_claims(), **header), "nothing but alg, kid and typ")


# 4. crit


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}])
def test_critical_header(stage: Stage, header: dict[str, Any]) -> None:
    stage.refuse(stage.signer.token(oidc_claims(), **header), "not supported")


# 5. The issuer is compared as a whole


@pytest.mark.parametrize(
    "issuer",
    [
        ISSUER + "/",
        ISSUER[:-1],
        ISSUER + ".evil.example",
        "https://evil.example/" + ISSUER,
        ISSUER.upper(),
        ISSUER.replace("https", "http"),
        ISSUER.replace("https", "HTTPS"),
        " " + ISSUER,
        "",
        [ISSUER],
        {"iss": ISSUER},
        None,
        7,
        ABSENT,
    ],
)
def test_issuer_that_is_nearly_right(stage: Stage, issuer: Any) -> None:
    stage.refuse(stage.signer.token(oidc_claims(iss=issuer)), "no attestor is for what the evidence claims")


def test_issuer_is_checked_once_more_when_verified(stage: Stage) -> None:
    """Routing is not what establishes the issuer."""
    token = stage.signer.token(oidc_claims(iss="https://b.example"))
    stage.refuse_by("oidc", token, f"iss is not {ISSUER}")


# 6. belongs to authorization, where patterns are; evidence is only ever compared exactly


@pytest.mark.parametrize(
    "subject", [WORKLOAD + "\n", f"spiffe://{TRUST_DOMAIN}.evil/x", f"spiffe://x@{TRUST_DOMAIN}/x"]
)
def test_trust_domain_is_compared_as_a_whole(stage: Stage, subject: str) -> None:
    stage.refuse(stage.svid_signer.token(svid_claims(sub=subject)))


# 7. Audience


@pytest.mark.parametrize(
    "audience",
    [
        ABSENT,
        None,
        "",
        "other",
        AUDIENCE + "2",
        AUDIENCE.upper(),
        [],
        ["other"],
        [AUDIENCE, "other"],
        [AUDIENCE, AUDIENCE],
        [AUDIENCE, 7],
        [[AUDIENCE]],
        {AUDIENCE: True},
        True,
        7,
    ],
)
def test_audience(stage: Stage, audience: Any) -> None:
    stage.refuse(stage.signer.token(oidc_claims(aud=audience)), "aud|meant for others")
    stage.refuse(stage.svid_signer.token(svid_claims(aud=audience)), "aud|meant for others")


def test_several_audiences_where_the_entry_allows_them(tmp_path: Path, clock: FakeClock) -> None:
    stage = Stage(tmp_path, clock, single_audience=False)
    assert stage.attest(stage.signer.token(oidc_claims(aud=["other", AUDIENCE]))).subject == "agent-7"
    stage.refuse(stage.signer.token(oidc_claims(aud=["other", "another"])), "meant for others")


# 8. Times


@pytest.mark.parametrize("make", [oidc_claims, svid_claims])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"exp": ABSENT}, "has no exp"),
        ({"exp": None}, "exp is not a time"),
        ({"exp": str(seconds(hours=1))}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": [seconds(hours=1)]}, "exp is not a time"),
        ({"exp": -1}, "exp is not a time"),
        ({"exp": 1e300}, "exp is not a time"),
        ({"exp": 2**62}, "exp is not a time"),
        ({"exp": 2**64}, "64 bits"),
        ({"exp": float("inf")}, "not finite"),
        ({"exp": float("nan")}, "not finite"),
        ({"exp": seconds(hours=24)}, "lives longer"),
        ({"exp": seconds(days=36500)}, "lives longer"),
        ({"exp": seconds(hours=24, seconds=1), "iat": ABSENT}, "lives longer"),
        ({"iat": seconds(hours=-24)}, "lives longer"),
        ({"nbf": seconds(seconds=31)}, "nbf is in the future"),
        ({"iat": seconds(seconds=31)}, "iat is in the future"),
        ({"nbf": "0"}, "nbf is not a time"),
        ({"nbf": False}, "nbf is not a time"),
        ({"iat": None}, "iat is not a time"),
        ({"iat": {}}, "iat is not a time"),
    ],
)
def test_times(stage: Stage, make: Any, changes: dict[str, Any], match: str) -> None:
    signer = stage.signer if make is oidc_claims else stage.svid_signer
    stage.refuse(signer.token(make(**changes)), match)


def test_times_that_are_just_right(stage: Stage) -> None:
    for changes in (
        {"exp": seconds(hours=24), "iat": seconds()},
        {"exp": seconds(hours=24), "iat": ABSENT},
        {"exp": NOW.timestamp() + 0.5},
        {"nbf": seconds(seconds=30), "iat": seconds(seconds=30)},
        {"exp": seconds(seconds=-29), "jti": "within leeway"},
    ):
        assert stage.attest(stage.signer.token(oidc_claims(**changes))).subject == "agent-7"


def test_expired_is_said_only_of_what_is_genuine(stage: Stage) -> None:
    late = {"exp": seconds(seconds=-30), "iat": seconds(hours=-1)}
    stage.refuse(stage.signer.token(oidc_claims(**late)), "expired at 2025-12-31T23:59:30", EvidenceExpired)
    stage.refuse(stage.svid_signer.token(svid_claims(**late)), "expired at", EvidenceExpired)
    stage.refuse(Signer("ES256", "k1", number=5).token(oidc_claims(**late)), "signature does not verify")
    stage.refuse(stage.signer.token(oidc_claims(**late, aud="other")), "meant for others")
    stage.refuse(stage.signer.token(oidc_claims(**late, sub="")), "sub")


# 9. Replay


def _malleated(token: str) -> str:
    """The other signature that verifies with ECDSA: (r, n - s)."""
    signing_input, _, signature = token.rpartition(".")
    raw = base64url.decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:])))
    return f"{signing_input}.{base64url.encode(r.to_bytes(32) + (order - s).to_bytes(32))}"


def test_one_time_evidence_has_one_proof_in_all_its_forms(tmp_path: Path, clock: FakeClock) -> None:
    stage = Stage(tmp_path, clock, one_time=True)
    token = stage.signer.token(oidc_claims(jti="once"))
    first, again = stage.attest(token), stage.attest(token)
    other_form = stage.attest(_malleated(token))
    other_token = stage.attest(stage.signer.token(oidc_claims(jti="once", exp=seconds(hours=2))))
    assert first.proof is not None
    assert first is not again, "one-time evidence must not come from the cache"
    digests = {identity.proof.digest for identity in (first, again, other_form, other_token) if identity.proof}
    assert digests == {hashlib.sha256(f"{ISSUER}\0once".encode()).hexdigest()}
    assert first.proof.expires_at >= first.expires_at + timedelta(hours=2)
    assert stage.attest(stage.signer.token(oidc_claims(jti="twice"))).proof != first.proof


@pytest.mark.parametrize("jti", [ABSENT, None, "", 7, ["x"], "x" * 1025])
def test_one_time_evidence_needs_an_identifier(tmp_path: Path, clock: FakeClock, jti: Any) -> None:
    stage = Stage(tmp_path, clock, one_time=True)
    stage.refuse(stage.signer.token(oidc_claims(jti=jti)), "jti")


def test_altered_encoding_of_the_signature(stage: Stage) -> None:
    signer = Signer("RS256", "r1")
    stage.jwks.write_bytes(key_set(signer))
    stage.attestation.reload()
    token = signer.token(oidc_claims())
    assert stage.attest(token).subject == "agent-7"
    # The last character of 256 encoded bytes has four bits that mean nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    index = alphabet.index(token[-1])
    for bits in range(1, 16):
        stage.refuse(token[:-1] + alphabet[index ^ bits], "not canonical")
    for altered in (token + "=", token + "==", token + " ", token + "\n", token.replace(".", "=.", 1)):
        stage.refuse(altered, "base64url")
    stage.refuse(token + "A")


# 10. The cache is keyed by the whole token


def test_cache_tells_tokens_apart_by_every_character(stage: Stage) -> None:
    token = stage.signer.token(oidc_claims())
    cached = stage.attest(token)
    assert stage.attest(token) is cached
    for index, character in enumerate(token):
        altered = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        stage.refuse(altered)
    assert stage.attest(token) is cached


def test_same_signature_with_other_claims(stage: Stage) -> None:
    token = stage.signer.token(oidc_claims())
    stage.attest(token)
    header, _, signature = token.split(".")
    stage.refuse(f"{header}.{base64url.encode(dumps(oidc_claims(sub='admin')))}.{signature}", "does not verify")


# 11. What no parser agrees on, and what no database takes


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b'{"sub":"a","sub":"b",%s}', "member twice"),
        (b'{"sub":"a","x":{"y":1,"y":2},%s}', "member twice"),
        (b'{"sub":"a\\u0000b",%s}', r"U\+0000"),
        (b'{"sub":"a\x00b",%s}', "not JSON"),
        (b'{"sub":"\\ud800",%s}', r"U\+D800"),
        (b'{"sub":"\\udc00\\ud800",%s}', r"U\+DC00"),
        (b'{"sub":"a\\nb",%s}', r"U\+000A"),
        (b'{"sub":"\\u001b[2J",%s}', r"U\+001B"),
        (b'{"sub":"a","x":["\\u0085"],%s}', r"U\+0085"),
        (b'{"sub":"a","x\\u0000":1,%s}', r"U\+0000"),
        (b'{"sub":"a","jti":"\\u007f",%s}', r"U\+007F"),
        (b'{"sub":"\xff",%s}', "not UTF-8"),
        (b'{"sub":"a","x":' + b"[" * 20 + b"]" * 20 + b",%s}", "levels"),
        (b'{"sub":"a","x":' + b"[" * 2500 + b"]" * 2500 + b",%s}", "levels"),
        (b'{"sub":"a","x":[' + b"1," * 2500 + b"1],%s}", "values"),
        (b'{"sub":"a","x":' + b"9" * 5000 + b",%s}", "64 bits"),
        (b'{"sub":"a","x":1e999,%s}', "out of range"),
        (b'{"sub":"a","x":Infinity,%s}', "not finite"),
        (b"[%s]", "not JSON"),
        (b"[{%s}]", "not a JSON object"),
        (b'\xef\xbb\xbf{"sub":"a",%s}', "not JSON"),
        (b'{"sub":"a",%s} {}', "not JSON"),
        (b'{"sub":"a",%s,}', "not JSON"),
        (b'{sub:"a",%s}', "not JSON"),
    ],
)
def test_claims_that_are_not_plain_json(stage: Stage, payload: bytes, match: str) -> None:
    rest = dumps(oidc_claims(sub=ABSENT))[1:-1]
    stage.refuse(stage.signer.compact(dumps({"alg": "ES256", "kid": "k1"}), payload.replace(b"%s", rest)), match)


def test_header_that_is_not_plain_json(stage: Stage) -> None:
    stage.refuse(stage.signer.compact(b'{"alg":"ES256","alg":"none","kid":"k1"}', dumps(oidc_claims())), "header")


def test_claims_in_another_encoding_of_json(stage: Stage) -> None:
    claims = dumps(oidc_claims()).decode().encode("utf-16")
    stage.refuse(stage.signer.compact(dumps({"alg": "ES256", "kid": "k1"}), claims), "not UTF-8")


@pytest.mark.parametrize("size", [16 * 1024 + 1, 1024 * 1024])
def test_token_that_is_too_large(stage: Stage, size: int) -> None:
    token = stage.signer.token(oidc_claims(x="x" * size))
    stage.refuse(token, "ASCII of at most 16384")


@pytest.mark.parametrize("subject", [ABSENT, None, "", 7, True, ["a"], {"a": 1}, "x" * 1025, "\U0001f916" * 200])
def test_subject(stage: Stage, subject: Any) -> None:
    stage.refuse(stage.signer.token(oidc_claims(sub=subject)), "sub|URI")


# 15. X.509


def test_chain_that_only_looks_alike(stage: Stage) -> None:
    """Same subject, serial number and key identifier as the authority in the bundle, another key."""
    identifier = (x509.SubjectKeyIdentifier(b"k" * 20), False)
    genuine = Authority(extensions={"identifier": identifier})
    impostor = Authority(extensions={"identifier": identifier})
    stage.x509_bundle.write_bytes(genuine.pem)
    stage.attestation.reload()
    pointer = (x509.AuthorityKeyIdentifier(b"k" * 20, None, None), False)
    assert stage.attest(peer(genuine.leaf(pointer=pointer))).uri == WORKLOAD
    stage.refuse(peer(impostor.leaf(pointer=pointer)), "does not verify")
    stage.refuse(peer(impostor.leaf(pointer=pointer), impostor.certificate), "does not verify")
    stage.refuse(peer(impostor.leaf(pointer=pointer), genuine.certificate), "does not verify")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([WORKLOAD, WORKLOAD + "2"], "2 URIs"),
        ([WORKLOAD, "https://example.org/"], "2 URIs"),
        ([WORKLOAD, WORKLOAD], "2 URIs"),
        (["https://example.org/x"], "not the SPIFFE ID"),
        (["spiffe://example.org"], "not the SPIFFE ID"),
        (["spiffe://example.org/"], "not the SPIFFE ID"),
        (["spiffe://EXAMPLE.org/x"], "not the SPIFFE ID"),
        (["spiffe://example.org/a/../b"], "not the SPIFFE ID"),
    ],
)
def test_uris_of_a_certificate(stage: Stage, names: list[str], match: str) -> None:
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
    stage.refuse(peer(stage.authority.leaf(names=(san, False))), match)


def test_certificate_without_uri(stage: Stage) -> None:
    stage.refuse(peer(stage.authority.leaf(names=None)), "no readable subject alternative name")
    dns = x509.SubjectAlternativeName([x509.DNSName("example.org")])
    stage.refuse(peer(stage.authority.leaf(names=(dns, False))), "0 URIs")


@pytest.mark.parametrize(
    "extensions",
    [
        {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)},
        {"usage": (usage("digital_signature", "key_cert_sign"), True)},
        {"usage": (usage("digital_signature", "crl_sign"), True)},
        {"usage": (usage("key_agreement"), True)},
    ],
)
def test_authority_as_leaf(stage: Stage, extensions: Any) -> None:
    stage.refuse(peer(stage.authority.leaf(**extensions)), "does not verify: .*leaf")


def test_authority_itself_as_peer(stage: Stage) -> None:
    authority = Authority(extensions={"names": (uri(WORKLOAD), False)})
    stage.x509_bundle.write_bytes(authority.pem)
    stage.attestation.reload()
    stage.refuse(peer(authority.certificate), "the leaf is an authority")


def test_certificate_of_another_trust_domain(stage: Stage) -> None:
    leaf = stage.authority.leaf(names=(uri("spiffe://other.example/x"), False))
    stage.refuse(peer(leaf), "no attestor is for what the evidence claims: x509_svid 'other.example'")


def test_resumed_session_after_the_authority_was_removed(stage: Stage) -> None:
    """A connection goes on; what it presented is verified against the bundle of now."""
    evidence = peer(stage.authority.leaf())
    assert stage.attest(evidence) is stage.attest(evidence)
    stage.x509_bundle.write_bytes(Authority("successor").pem)
    stage.attestation.reload()
    stage.refuse(evidence, "does not verify")


def test_long_connection_whose_certificate_expires(stage: Stage) -> None:
    evidence = peer(stage.authority.leaf())
    assert stage.attest(evidence, NOW + timedelta(hours=1)).expires_at == NOW + timedelta(hours=1)
    stage.refuse(evidence, "expired at", EvidenceExpired, NOW + timedelta(hours=1, seconds=1))
    stage.refuse(peer(Authority().leaf()), "does not verify", now=NOW + timedelta(hours=2))


# 16. Nothing but the verified bytes


def test_identity_says_what_was_signed(stage: Stage) -> None:
    token = stage.signer.token(oidc_claims(groups=["a"]), sub="header", iss="header", groups=["header"])
    identity = stage.attest(token)
    assert identity.claims == oidc_claims(groups=["a"])
    assert identity.evidence_digest == hashlib.sha256(token.encode()).hexdigest()


# 17. Keys of another authority


def test_svid_of_one_domain_signed_by_another(tmp_path: Path, clock: FakeClock) -> None:
    a, b = Signer("ES256", "svid", number=10), Signer("ES384", "svid", number=11)
    ca_a, ca_b = Authority("a"), Authority("b")
    entries = []
    for name, signer, authority in (("a", a, ca_a), ("b", b, ca_b)):
        (tmp_path / f"{name}.json").write_bytes(key_set(signer))
        (tmp_path / f"{name}.pem").write_bytes(authority.pem)
        bundle = {"file": str(tmp_path / f"{name}.json")}
        entries.append(entry("jwt_svid", trust_domain=f"{name}.example", audiences=[AUDIENCE], bundle=bundle))
        entries.append(
            entry("x509_svid", trust_domain=f"{name}.example", bundle={"file": str(tmp_path / f"{name}.pem")})
        )
    attestation = Attestation(entries, clock)
    names = (uri("spiffe://a.example/x"), False)
    good: list[Evidence] = [bearer(a.token(svid_claims(sub="spiffe://a.example/x"))), peer(ca_a.leaf(names=names))]
    bad: list[Evidence] = [bearer(b.token(svid_claims(sub="spiffe://a.example/x"))), peer(ca_b.leaf(names=names))]
    for evidence in good:
        assert finish(attestation.attest(evidence, NOW)).uri == "spiffe://a.example/x"
    for evidence in bad:
        with pytest.raises(EvidenceInvalid):
            finish(attestation.attest(evidence, NOW))


def test_svid_signed_by_an_oidc_issuer_and_the_other_way_round(stage: Stage) -> None:
    stage.refuse(stage.signer.token(svid_claims()), "does not have")
    stage.refuse(stage.svid_signer.token(oidc_claims()), "does not have")
    # A configured issuer in iss decides, whatever sub looks like.
    stage.refuse(stage.svid_signer.token(svid_claims(iss=ISSUER)), "does not have")
    identity = stage.attest(stage.signer.token(oidc_claims(sub=WORKLOAD)))
    assert identity.uri == f"{ISSUER}#{WORKLOAD}"
    assert identity.spiffe_id is None
