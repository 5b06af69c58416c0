"""One piece of evidence, or none: there is no falling back."""

from collections.abc import Mapping, Sequence

import pytest

from broker.attest.evidence import BearerToken, PeerCertificates
from broker.dev.pki import DevAuthority
from broker.errors import EvidenceInvalid, EvidenceMissing
from broker.serve.evidence import MAX_CERTIFICATE_BYTES, MAX_TOKEN_CHARS, find_evidence

TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl"


def found(
    *headers: str | bytes, connection: Mapping[str, Sequence[bytes]] | None = None
) -> BearerToken | PeerCertificates:
    metadata = [("user-agent", "x"), *(("authorization", header) for header in headers)]
    return find_evidence(metadata, connection or {"transport_security_type": [b"ssl"]})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_token_after_the_scheme_in_any_case(scheme: str) -> None:
    evidence = found(f"{scheme} {TOKEN}")
    assert isinstance(evidence, BearerToken)
    assert evidence.token.reveal() == TOKEN


def test_token_of_the_greatest_length_is_taken() -> None:
    evidence = found("Bearer " + "a" * MAX_TOKEN_CHARS)
    assert isinstance(evidence, BearerToken)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer  {TOKEN}",
        f"Bearer\t{TOKEN}",
        f" Bearer {TOKEN}",
        f"Bearer {TOKEN} ",
        f"Bearer {TOKEN}\n",
        f"Bearer {TOKEN},Bearer {TOKEN}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer tök",
        "Bearer a\x00b",
        "Bearer =abc",
        "Bearer " + "a" * (MAX_TOKEN_CHARS + 1),
        b"Bearer abc",
    ],
)
def test_anything_else_is_invalid(header: str | bytes) -> None:
    with pytest.raises(EvidenceInvalid) as caught:
        found(header)
    assert TOKEN not in caught.value.detail


def test_two_headers_are_invalid_even_when_equal() -> None:
    with pytest.raises(EvidenceInvalid, match="2 times"):
        found(f"Bearer {TOKEN}", f"Bearer {TOKEN}")


def test_nothing_is_missing_evidence() -> None:
    with pytest.raises(EvidenceMissing):
        found()


def certificate() -> bytes:
    return DevAuthority().issue(spiffe_id="spiffe://example.test/a")[0]


def test_certificate_chain_is_split_leaf_first() -> None:
    leaf, intermediate = certificate(), certificate()
    evidence = found(connection={"x509_pem_cert": [leaf], "x509_pem_cert_chain": [leaf + intermediate]})
    assert evidence == PeerCertificates((leaf, intermediate))


def test_leaf_alone_where_grpc_tells_no_chain() -> None:
    leaf = certificate()
    assert found(connection={"x509_pem_cert": [leaf]}) == PeerCertificates((leaf,))


def test_certificate_and_token_together_are_invalid() -> None:
    with pytest.raises(EvidenceInvalid, match="both"):
        found(f"Bearer {TOKEN}", connection={"x509_pem_cert": [certificate()]})


def test_even_a_broken_header_beside_a_certificate_is_invalid() -> None:
    with pytest.raises(EvidenceInvalid, match="both"):
        found("", connection={"x509_pem_cert": [certificate()]})


@pytest.mark.parametrize("pem", [b"x", b"-----BEGIN CERTIFICATE-----", b"\0" * 100])
def test_unreadable_certificate_is_invalid(pem: bytes) -> None:
    with pytest.raises(EvidenceInvalid, match="cannot be read"):
        found(connection={"x509_pem_cert": [pem]})


def test_huge_chain_is_invalid() -> None:
    with pytest.raises(EvidenceInvalid, match="larger than"):
        found(connection={"x509_pem_cert_chain": [b"a" * (MAX_CERTIFICATE_BYTES + 1)]})
