"""A certificate authority for development and tests: server certificates and X.509-SVIDs."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BACKDATED = timedelta(minutes=5)
_CA_LIFETIME = timedelta(days=365)


class DevAuthority:
    """Issues certificates under a root of its own, EC P-256.

    The root names its trust domain, so that it serves as an X.509-SVID
    authority too (SPIFFE X509-SVID, section 2).

    Args:
        trust_domain: Name of the SPIFFE trust domain.
    """

    def __init__(self, trust_domain: str = "example.test") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _root(self._key, trust_domain)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> "DevAuthority":
        """Return an authority that was saved as `certificate_pem` and `key_pem`.

        Raises:
            ValueError: when either cannot be read.
        """
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key must be an EC key")
        authority = cls.__new__(cls)
        authority._key = key
        authority._certificate = x509.load_pem_x509_certificate(certificate_pem)
        return authority

    @property
    def certificate_pem(self) -> bytes:
        """The root certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The root's private key, PKCS #8, not encrypted."""
        return _key_pem(self._key)

    def issue(
        self,
        *,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        spiffe_id: str | None = None,
        lifetime: timedelta = timedelta(hours=1),
    ) -> tuple[bytes, bytes]:
        """Issue a certificate for a server, a client or a workload.

        Args:
            names: DNS names.
            addresses: IP addresses.
            spiffe_id: Makes it an X.509-SVID with this one URI.
            lifetime: From now on; a negative one gives an expired certificate.

        Returns:
            Certificate and PKCS #8 private key, PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        if spiffe_id is not None:
            alternatives.append(x509.UniformResourceIdentifier(spiffe_id))
        now = datetime.now(UTC)
        not_after = now + lifetime
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, not_after) - _BACKDATED)
            .not_valid_after(not_after)
            # Critical because the subject is empty (RFC 5280, section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def _root(key: ec.EllipticCurvePrivateKey, trust_domain: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"credbroker development, {trust_domain}"[:64])])
    now = datetime.now(UTC)
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CA_LIFETIME)
        .not_valid_after(now + _CA_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, digital_signature: bool = False, sign_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
