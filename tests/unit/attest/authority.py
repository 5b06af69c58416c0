"""X.509 authorities that tests control."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.unit.attest.signing import NOW, WORKLOAD

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

# For TLS servers, which look at the machine's clock.
FAR = datetime(2100, 1, 1, tzinfo=UTC)


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in _USAGES})


def uri(text: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])


LEAF: dict[str, tuple[x509.ExtensionType, bool]] = {
    "names": (uri(WORKLOAD), False),
    "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
    "usage": (usage("digital_signature"), True),
    "purposes": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
}
AUTHORITY: dict[str, tuple[x509.ExtensionType, bool]] = {
    "constraints": (x509.BasicConstraints(ca=True, path_length=None), True),
    "usage": (usage("key_cert_sign", "crl_sign"), True),
}


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Authority:
    """A certificate authority; without an issuer it is a root."""

    name: str = "authority"
    issuer: "Authority | None" = None
    extensions: dict[str, tuple[x509.ExtensionType, bool] | None] = field(default_factory=dict)
    not_after: datetime = NOW + timedelta(days=30)
    serial: int = 1
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        signer = self.issuer or self
        self.certificate = _sign(
            signer, self.name, self.key.public_key(), {**AUTHORITY, **self.extensions}, self.not_after, self.serial
        )

    @property
    def pem(self) -> bytes:
        return pem(self.certificate)

    def leaf(
        self,
        *,
        key: Any = None,
        not_after: datetime = NOW + timedelta(hours=1),
        **extensions: tuple[x509.ExtensionType, bool] | None,
    ) -> x509.Certificate:
        """Issue a leaf; extensions given replace the usual ones, None removes them."""
        public = (key or ec.generate_private_key(ec.SECP256R1())).public_key()
        return _sign(self, "workload", public, {**LEAF, **extensions}, not_after, 7)


def _sign(
    signer: Authority,
    subject: str,
    public: Any,
    extensions: dict[str, tuple[x509.ExtensionType, bool] | None],
    not_after: datetime,
    serial: int,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer.name)]))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(not_after)
    )
    for extension in extensions.values():
        if extension is not None:
            builder = builder.add_extension(*extension)
    return builder.sign(signer.key, hashes.SHA256())
