import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker.attest import ATTESTORS, SETTINGS, Attestation
from broker.attest.evidence import Evidence, PeerCertificates
from broker.config import load_settings
from broker.errors import ConfigError, EvidenceExpired, EvidenceInvalid, EvidenceMissing, KeysUnavailable
from broker.model import EvidenceKind
from tests.fixtures.clock import FakeClock
from tests.unit.attest.authority import Authority
from tests.unit.attest.key_server import KeyServer
from tests.unit.attest.signing import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    NOW,
    TRUST_DOMAIN,
    WORKLOAD,
    Signer,
    key_set,
    oidc_claims,
    seconds,
    svid_claims,
)
from tests.unit.attest.support import Stage, bearer, entry, finish, peer


def test_each_kind_of_evidence(stage: Stage) -> None:
    token = stage.attest(stage.signer.token(oidc_claims()))
    assert (token.kind, token.uri) == (EvidenceKind.OIDC, f"{ISSUER}#agent-7")
    assert (token.issuer, token.subject, token.spiffe_id) == (ISSUER, "agent-7", None)
    assert token.expires_at == NOW + timedelta(hours=1)
    for svid in (
        stage.attest(stage.svid_signer.token(svid_claims())),
        stage.attest(peer(stage.authority.leaf())),
    ):
        assert svid.uri == svid.subject == svid.spiffe_id == WORKLOAD
        assert svid.issuer == f"spiffe://{TRUST_DOMAIN}"
        assert svid.expires_at == NOW + timedelta(hours=1)
        assert svid.proof is None
    assert stage.attest(stage.svid_signer.token(svid_claims(x=1))).claims == svid_claims(x=1)
    assert stage.attest(peer(stage.authority.leaf())).claims == {}


def test_no_evidence(stage: Stage) -> None:
    with pytest.raises(EvidenceMissing):
        stage.attest(None)


@pytest.mark.parametrize(
    "claims",
    [
        svid_claims(iss="https://somebody.example"),
        svid_claims(iss=7),
        svid_claims(iss=ISSUER + "/"),
    ],
)
def test_svid_may_have_an_issuer_that_is_nobody_here(stage: Stage, claims: dict[str, Any]) -> None:
    assert stage.attest(stage.svid_signer.token(claims)).uri == WORKLOAD


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sub": "spiffe://other.example/x"}, "claims: jwt_svid 'other.example'"),
        ({"sub": "spiffe://example.org"}, "sub is not the SPIFFE ID"),
        ({"sub": "spiffe://example.org/../x"}, "sub is not the SPIFFE ID"),
        ({"sub": "agent-7"}, "claims: nothing"),
        ({"sub": ABSENT}, "claims: nothing"),
        ({"sub": 7}, "claims: nothing"),
        ({"iss": "x" * 500, "sub": "a"}, r"claims: oidc 'x{100}'$"),
        ({"iss": "https://ä.example", "sub": "a"}, r"oidc 'https://\\xe4\.example'"),
    ],
)
def test_evidence_that_is_nobodys(stage: Stage, changes: dict[str, Any], match: str) -> None:
    stage.refuse(stage.svid_signer.token(svid_claims(**changes)), match)


def test_one_attestor_decides(tmp_path: Path, clock: FakeClock) -> None:
    """Both would accept the signature; the one that is not asked must not make up for the one that refuses."""
    stage = Stage(tmp_path, clock, audiences=["other"])
    stage.jwt_bundle.write_bytes(key_set(stage.signer))
    stage.attestation.reload()
    token = stage.signer.token(svid_claims(iss=ISSUER))
    stage.refuse(token, "meant for others")
    assert stage.attest(stage.signer.token(svid_claims())).uri == WORKLOAD


@pytest.mark.parametrize("kind", ATTESTORS)
def test_attestors_take_their_own_evidence_alone(stage: Stage, clock: FakeClock, kind: str) -> None:
    evidence: dict[str, Evidence] = {
        "oidc": bearer(stage.signer.token(oidc_claims())),
        "jwt_svid": bearer(stage.svid_signer.token(svid_claims())),
        "x509_svid": peer(stage.authority.leaf()),
    }
    attestor = stage.attestors[kind]
    assert finish(attestor.attest(evidence[kind], NOW)).kind == kind
    for other in evidence.keys() - {kind}:
        with pytest.raises(EvidenceInvalid):
            finish(attestor.attest(evidence[other], NOW))
        with pytest.raises(TypeError):
            ATTESTORS[kind].build(stage.entries[other], clock)


def test_identity_is_remembered_for_a_while(stage: Stage) -> None:
    token = stage.signer.token(oidc_claims())
    first = stage.attest(token)
    assert stage.attest(token, NOW + timedelta(minutes=5, seconds=-1)) is first
    later = stage.attest(token, NOW + timedelta(minutes=5))
    assert later is not first
    assert later == first


def test_remembered_identity_expires(stage: Stage) -> None:
    token = stage.signer.token(oidc_claims(exp=seconds(minutes=2)))
    first = stage.attest(token)
    assert stage.attest(token, NOW + timedelta(minutes=2, seconds=-1)) is first
    assert stage.attest(token, NOW + timedelta(minutes=2)) is not first, "within the leeway"
    stage.refuse(token, "expired", EvidenceExpired, NOW + timedelta(minutes=2, seconds=30))
    stage.refuse(token, "expired", EvidenceExpired, NOW + timedelta(minutes=4))


@pytest.mark.parametrize("kind", ["oidc", "jwt_svid", "x509_svid"])
def test_remembered_identity_goes_with_its_keys(stage: Stage, kind: str) -> None:
    cases: dict[str, tuple[Evidence, Path, bytes]] = {
        "oidc": (bearer(stage.signer.token(oidc_claims())), stage.jwks, key_set(Signer(number=9))),
        "jwt_svid": (bearer(stage.svid_signer.token(svid_claims())), stage.jwt_bundle, key_set(Signer(number=9))),
        "x509_svid": (peer(stage.authority.leaf()), stage.x509_bundle, Authority("successor").pem),
    }
    evidence, file, successor = cases[kind]
    first = stage.attest(evidence)
    stage.attestation.reload()
    assert stage.attest(evidence) is first, "nothing has changed"
    file.write_bytes(successor)
    assert stage.attest(evidence) is first, "nothing was reloaded"
    stage.attestation.reload()
    stage.refuse(evidence)


@pytest.mark.parametrize("nonsense", [b"", b"nonsense", b"{}", b"x" * (1024 * 1024 + 1)])
def test_reload_of_nonsense_keeps_what_is_there_and_does_the_rest(stage: Stage, nonsense: bytes) -> None:
    token, certificate = stage.signer.token(oidc_claims()), peer(stage.authority.leaf())
    stage.jwks.write_bytes(nonsense)
    stage.x509_bundle.write_bytes(nonsense)
    other = Signer("ES256", "svid-2", number=8)
    stage.jwt_bundle.write_bytes(key_set(other))
    with pytest.raises(ConfigError) as caught:
        stage.attestation.reload()
    assert str(stage.jwks) in caught.value.detail
    assert str(stage.x509_bundle) in caught.value.detail
    assert stage.attest(token).subject == "agent-7"
    assert stage.attest(certificate).uri == WORKLOAD
    assert stage.attest(other.token(svid_claims())).uri == WORKLOAD


def test_reload_of_files_that_are_gone(stage: Stage) -> None:
    stage.jwks.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        stage.attestation.reload()
    assert stage.attest(stage.signer.token(oidc_claims())).subject == "agent-7"


def test_reload_of_a_key_set_that_is_empty_on_purpose(stage: Stage) -> None:
    stage.jwks.write_bytes(key_set())
    stage.attestation.reload()
    stage.refuse(stage.signer.token(oidc_claims()), "does not have")


def test_two_attestors_for_the_same_authority(tmp_path: Path, clock: FakeClock) -> None:
    stage = Stage(tmp_path, clock)
    bundle = {"file": str(stage.x509_bundle)}
    entries = [entry("x509_svid", name=name, trust_domain=TRUST_DOMAIN, bundle=bundle) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=f"attestors a and b are both for {TRUST_DOMAIN}"):
        Attestation(entries, clock)


def test_bundle_for_the_listener(tmp_path: Path, clock: FakeClock) -> None:
    one, two, three = Authority("one"), Authority("two"), Authority("three")
    (tmp_path / "a.pem").write_bytes(b"Some words first.\n" + one.pem + b"\n\n" + two.pem)
    (tmp_path / "b.pem").write_bytes(three.pem)
    stage = Attestation(
        [
            entry("x509_svid", name=name, trust_domain=name, bundle={"file": str(tmp_path / f"{name}.pem")})
            for name in ("a", "b")
        ],
        clock,
    )
    certificates = x509.load_pem_x509_certificates(stage.trust_bundle_pem())
    assert certificates == [one.certificate, two.certificate, three.certificate]


def test_no_bundle_for_the_listener(clock: FakeClock) -> None:
    assert Attestation([], clock).trust_bundle_pem() == b""


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a bundle"),
        (b"nonsense", "not a bundle"),
        (Authority().leaf(), "no authority"),
        (None, "cannot be read"),
    ],
)
def test_bundle_that_cannot_be_used(tmp_path: Path, clock: FakeClock, content: Any, match: str) -> None:
    file = tmp_path / "bundle.pem"
    if isinstance(content, x509.Certificate):
        content = peer(content).chain[0]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        Attestation([entry("x509_svid", trust_domain="a", bundle={"file": str(file)})], clock)


def test_certificate_without_constraints_is_no_authority(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "bundle.pem"
    file.write_bytes(peer(Authority().leaf(constraints=None)).chain[0])
    with pytest.raises(ConfigError, match="no authority"):
        Attestation([entry("x509_svid", trust_domain="a", bundle={"file": str(file)})], clock)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not JSON"),
        (b"[]", "not a JSON Web Key Set"),
        (key_set(), "holds no usable key: it is empty"),
        (key_set({"kty": "oct", "k": "AAAA"}), "holds no usable key: key 0 has private members"),
        (None, "cannot be read"),
    ],
)
def test_key_file_that_cannot_be_used(tmp_path: Path, clock: FakeClock, content: bytes | None, match: str) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        Attestation([entry("oidc", issuer=ISSUER, audiences=["a"], jwks={"file": str(file)})], clock)


async def test_readiness(stage: Stage, key_server: KeyServer, clock: FakeClock, tmp_path: Path) -> None:
    await stage.attestation.check()
    described = [
        entry(
            "oidc",
            name=name,
            issuer=f"https://{name}.example",
            audiences=["a"],
            jwks={"url": key_server.url(), "allow_private": True},
        )
        for name in ("one", "two")
    ]
    attestation = Attestation(described, clock)
    key_server.status = 500
    with pytest.raises(KeysUnavailable, match=r"one: .*status 500; two: .*status 500"):
        await attestation.check()
    key_server.status, key_server.body = 200, key_set(Signer())
    clock.advance(timedelta(seconds=30))
    await attestation.check()
    token = Signer().token(oidc_claims(iss="https://two.example", aud="a"))
    assert (await attestation.attest(bearer(token), NOW)).uri == "https://two.example#agent-7"
    await attestation.close()


async def test_readiness_when_it_is_closed_meanwhile(key_server: KeyServer, clock: FakeClock) -> None:
    jwks = {"url": key_server.url(), "allow_private": True}
    attestation = Attestation([entry("oidc", issuer=ISSUER, audiences=["a"], jwks=jwks)], clock)
    key_server.gate.clear()
    checking = asyncio.create_task(attestation.check())
    async with asyncio.timeout(5):
        while not key_server.requests:  # noqa: ASYNC110 - what is waited for happens on sockets
            await asyncio.sleep(0)
    await attestation.close()
    with pytest.raises(asyncio.CancelledError):
        await checking


async def test_files_have_nothing_to_wait_for(stage: Stage) -> None:
    await stage.attestation.check()
    await stage.attestation.close()


def test_entries_come_from_the_configuration(tmp_path: Path, clock: FakeClock) -> None:
    stage = Stage(tmp_path, clock)
    (tmp_path / "broker.yaml").write_text(f"""
listen: {{bearer: {{address: "127.0.0.1:0", tls: {{certificate: c.pem, private_key: k.pem}}}}}}
database: {{url: "sqlite:///broker.db"}}
vault: {{address: "https://vault.example", auth: {{kind: token_file, file: token}}}}
fingerprint_key_file: fingerprint
attestors:
- kind: oidc
  name: issuer
  issuer: {ISSUER}
  audiences: [{AUDIENCE}]
  algorithms: [ES256, EdDSA]
  required_claims: {{sub: [agent-7, agent-8]}}
  leeway: 10s
  jwks: {{file: jwks.json}}
- kind: jwt_svid
  name: spire
  trust_domain: {TRUST_DOMAIN}
  audiences: [{AUDIENCE}]
  bundle: {{url: "https://bundles.example/keys?a=b", refresh: 5m}}
- kind: x509_svid
  name: spire-x509
  trust_domain: {TRUST_DOMAIN}
  bundle: {{file: bundle.pem}}
""")
    settings = load_settings(tmp_path / "broker.yaml", SETTINGS, {})
    attestation = Attestation(settings.attestors, clock)
    assert finish(attestation.attest(bearer(stage.signer.token(oidc_claims())), NOW)).subject == "agent-7"
    assert finish(attestation.attest(peer(stage.authority.leaf()), NOW)).uri == WORKLOAD


def test_chain_that_is_too_large(stage: Stage) -> None:
    stage.refuse(PeerCertificates((b"x" * 65537,)), "larger than 65536")
    stage.refuse(PeerCertificates((b"x",) * 7), "does not have 1 to 6")
    stage.refuse(PeerCertificates(()), "does not have 1 to 6")


def test_token_that_is_not_ascii(stage: Stage) -> None:
    for text in ("ä", "\ud800", "a.b.ﬁ"):
        stage.refuse(bearer(text), "not ASCII")
