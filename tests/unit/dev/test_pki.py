from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.dev.pki import DevAuthority


def leaf_of(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def store(authority: DevAuthority) -> Store:
    return Store([x509.load_pem_x509_certificate(authority.certificate_pem)])


def test_server_certificates_verify_under_the_root_and_for_their_names_alone() -> None:
    authority = DevAuthority()
    certificate, _ = authority.issue(names=["broker.test"], addresses=["127.0.0.1"])
    builder = PolicyBuilder().store(store(authority))
    builder.build_server_verifier(x509.DNSName("broker.test")).verify(leaf_of(certificate), [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("other.test")).verify(leaf_of(certificate), [])
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store(DevAuthority())).build_server_verifier(x509.DNSName("broker.test")).verify(
            leaf_of(certificate), []
        )


def test_an_svid_has_one_uri_and_the_usages_of_a_leaf() -> None:
    certificate, _ = DevAuthority().issue(spiffe_id="spiffe://example.test/agent")
    leaf = leaf_of(certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://example.test/agent")]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }


def test_the_root_names_its_trust_domain() -> None:
    root = leaf_of(DevAuthority("prod.test").certificate_pem)
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://prod.test")]
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_negative_lifetime_gives_an_expired_certificate() -> None:
    certificate, _ = DevAuthority().issue(names=["a.test"], lifetime=timedelta(hours=-1))
    assert leaf_of(certificate).not_valid_after_utc < datetime.now(UTC)


def test_a_saved_authority_issues_under_the_same_root() -> None:
    first = DevAuthority()
    second = DevAuthority.load(first.certificate_pem, first.key_pem)
    certificate, _ = second.issue(names=["a.test"])
    PolicyBuilder().store(store(first)).build_server_verifier(x509.DNSName("a.test")).verify(leaf_of(certificate), [])
