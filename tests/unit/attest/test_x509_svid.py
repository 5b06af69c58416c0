"""Paths and leaves beyond the known attacks, which are in test_threats.py."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from broker.attest.evidence import PeerCertificates
from tests.unit.attest.authority import Authority, pem, uri, usage
from tests.unit.attest.signing import NOW, WORKLOAD
from tests.unit.attest.support import Stage, peer

CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
ANY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0")
CONSTRAINTS = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)


@pytest.mark.parametrize(
    "extensions",
    [
        {},
        {"constraints": None},
        {"usage": None},
        {"usage": (usage("digital_signature", "key_encipherment", "key_agreement"), False)},
        {"purposes": None},
        {"purposes": (CLIENT, True)},
        {"names": (uri(WORKLOAD), True)},
        {"names": (x509.SubjectAlternativeName([*uri(WORKLOAD), x509.DNSName("planner.example.org")]), False)},
        {"identifier": (x509.AuthorityKeyIdentifier(b"x", None, None), False)},
        {"unknown": (UNKNOWN, False)},
        {"key": rsa.generate_private_key(65537, 2048)},
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"key": ed25519.Ed25519PrivateKey.generate()},
    ],
    ids=lambda extensions: "-".join(extensions) or "usual",
)
def test_leaves_that_the_standard_allows(stage: Stage, extensions: Any) -> None:
    identity = stage.attest(peer(stage.authority.leaf(**extensions)))
    assert identity.uri == WORKLOAD


@pytest.mark.parametrize(
    ("extensions", "match"),
    [
        ({"purposes": (SERVER, False)}, "leaf is not for clients"),
        ({"purposes": (ANY, False)}, "leaf is not for clients"),
        ({"names": (x509.SubjectAlternativeName([x509.DNSName("a")]), False)}, "0 URIs"),
        ({"unknown": (UNKNOWN, True)}, "critical"),
        ({"constraint": (CONSTRAINTS, True)}, "does not verify"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "too weak"),
        ({"key": ed448.Ed448PrivateKey.generate()}, "another kind"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_leaves_that_are_refused(stage: Stage, extensions: Any, match: str) -> None:
    stage.refuse(peer(stage.authority.leaf(**extensions)), match)


def _intermediates(stage: Stage, count: int, **extensions: Any) -> list[Authority]:
    authorities = [stage.authority]
    for number in range(count):
        authorities.append(Authority(f"intermediate-{number}", issuer=authorities[-1], extensions=extensions))
    return authorities[1:]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_intermediates(stage: Stage, count: int) -> None:
    authorities = _intermediates(stage, count)
    certificates = [authority.certificate for authority in reversed(authorities)]
    leaf = authorities[-1].leaf()
    assert stage.attest(peer(leaf, *certificates)).uri == WORKLOAD
    assert stage.attest(peer(leaf, *reversed(certificates))).uri == WORKLOAD
    stage.refuse(peer(leaf, *certificates[1:]), "does not verify")
    stage.refuse(peer(leaf), "does not verify")


def test_too_many_intermediates(stage: Stage) -> None:
    authorities = _intermediates(stage, 5)
    certificates = [authority.certificate for authority in reversed(authorities)]
    stage.refuse(peer(authorities[-1].leaf(), *certificates), "exceeds max depth")


@pytest.mark.parametrize(
    ("extensions", "match"),
    [
        ({"constraints": None}, "does not verify"),
        ({"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)}, "cA must be asserted"),
        ({"constraints": (x509.BasicConstraints(ca=True, path_length=None), False)}, "critical"),
        ({"usage": None}, "does not verify"),
        ({"usage": (usage("digital_signature", "crl_sign"), True)}, "not for signing certificates"),
        ({"purposes": (SERVER, False)}, "not for clients"),
        ({"names": (CONSTRAINTS, True)}, "does not verify"),
    ],
)
def test_intermediates_that_are_refused(stage: Stage, extensions: Any, match: str) -> None:
    (authority,) = _intermediates(stage, 1, **extensions)
    stage.refuse(peer(authority.leaf(), authority.certificate), match)


@pytest.mark.parametrize(
    "extensions",
    [
        {"purposes": (CLIENT, False)},
        {"purposes": (ANY, True)},
        {"names": (uri("spiffe://example.org"), False)},
        {"constraints": (x509.BasicConstraints(ca=True, path_length=0), True)},
        {
            "identifier": (
                x509.AuthorityKeyIdentifier(b"x", [x509.DNSName("as OpenSSL writes it")], 7),
                False,
            )
        },
    ],
)
def test_intermediates_that_the_standard_allows(stage: Stage, extensions: Any) -> None:
    (authority,) = _intermediates(stage, 1, **extensions)
    assert stage.attest(peer(authority.leaf(), authority.certificate)).uri == WORKLOAD


def test_leaf_that_signs_another(stage: Stage) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = stage.authority.leaf(key=key)
    pretender = Authority("workload", key=key)
    stage.refuse(peer(pretender.leaf(), leaf), "does not verify")


def test_path_length(stage: Stage) -> None:
    constraints = (x509.BasicConstraints(ca=True, path_length=0), True)
    upper, lower = _intermediates(stage, 2, constraints=constraints)
    stage.refuse(peer(lower.leaf(), lower.certificate, upper.certificate), "path length")


def test_identity_ends_with_the_first_certificate_that_does(stage: Stage) -> None:
    authority = Authority("short", issuer=stage.authority, not_after=NOW + timedelta(minutes=7))
    evidence = peer(authority.leaf(), authority.certificate)
    assert stage.attest(evidence).expires_at == NOW + timedelta(minutes=7)
    stage.refuse(evidence, "does not verify", now=NOW + timedelta(minutes=8))


def test_certificate_that_is_not_valid_yet(stage: Stage) -> None:
    stage.refuse(peer(stage.authority.leaf()), "not valid at validation time", now=NOW.replace(year=1999))


def test_authority_that_has_expired(stage: Stage) -> None:
    authority = Authority(not_after=NOW - timedelta(days=1))
    stage.x509_bundle.write_bytes(authority.pem)
    stage.attestation.reload()
    stage.refuse(peer(authority.leaf()), "does not verify")


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\0" * 100],
)
def test_certificates_that_cannot_be_read(stage: Stage, content: bytes) -> None:
    stage.refuse(PeerCertificates((content,)), "certificate 0 of the chain cannot be read")
    stage.refuse(PeerCertificates((pem(stage.authority.leaf()), content)), "certificate 1 of the chain cannot be read")


def test_two_certificates_in_one_place(stage: Stage) -> None:
    both = pem(stage.authority.leaf()) + stage.authority.pem
    stage.refuse(PeerCertificates((both,)), "certificate 0 of the chain is 2 certificates")


def test_name_of_a_kind_that_is_not_supported(stage: Stage) -> None:
    names = x509.SubjectAlternativeName(
        [*uri(WORKLOAD), x509.OtherName(ObjectIdentifier("1.2.3"), b"\x0c\1a"), x509.RFC822Name("a@example.org")]
    )
    assert stage.attest(peer(stage.authority.leaf(names=(names, False)))).uri == WORKLOAD


def test_svid_is_checked_once_more_when_verified(stage: Stage) -> None:
    """Routing is not what establishes the trust domain."""
    leaf = stage.authority.leaf(names=(uri("spiffe://other.example/x"), False))
    stage.refuse_by("x509_svid", peer(leaf), "not of the trust domain example.org")
