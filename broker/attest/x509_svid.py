"""X.509-SVIDs of mutual-TLS peers (the X509-SVID standard of SPIFFE)."""

from datetime import datetime
from hashlib import sha256
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import Store

from broker.attest.chain import UnverifiedChain, spiffe_id_of
from broker.attest.evidence import Evidence
from broker.attest.files import read_file
from broker.attest.kind import Kind, Route, Unverified
from broker.attest.reading import digest_evidence, read_evidence
from broker.attest.spiffe_id import TrustDomain
from broker.attest.x509_path import verify_chain
from broker.clock import Clock
from broker.config import AttestorSettings, FilePath
from broker.document import Strict
from broker.errors import ConfigError, EvidenceExpired, EvidenceInvalid
from broker.model import EvidenceKind, Identity


class BundleSettings(Strict):
    """Where a trust domain's authorities come from.

    Attributes:
        file: PEM; read at start and whenever the configuration is reloaded.
    """

    file: FilePath


class X509SvidSettings(AttestorSettings):
    """X.509-SVIDs of one trust domain.

    Attributes:
        trust_domain: Its name, without ``spiffe://``.
        bundle: Its authorities.
    """

    kind: Literal["x509_svid"]
    trust_domain: TrustDomain
    bundle: BundleSettings


class X509SvidAttestor:
    """Verifies X.509-SVIDs of one trust domain against its bundle as it is now.

    That the TLS handshake has accepted a certificate counts for nothing: the
    connection may be older than the bundle, and the listener trusts the
    authorities of every trust domain.
    """

    def __init__(self, settings: X509SvidSettings, _clock: Clock) -> None:
        self.name = settings.name
        self.route = Route(EvidenceKind.X509_SVID, settings.trust_domain)
        self.generation = 0
        self._file = settings.bundle.file
        self._trust_domain = settings.trust_domain
        self._load(self._read())

    @property
    def trust_bundle_pem(self) -> bytes:
        """The authorities, PEM."""
        return b"".join(authority.public_bytes(Encoding.PEM) for authority in self._authorities)

    async def attest(self, evidence: Evidence, now: datetime) -> Identity:
        """See `broker.attest.evidence.Attestor`."""
        return await self.verify(read_evidence(evidence, digest_evidence(evidence)), now)

    async def verify(self, unverified: Unverified, now: datetime) -> Identity:
        """See `broker.attest.kind.RoutedAttestor`."""
        if not isinstance(unverified, UnverifiedChain):
            raise EvidenceInvalid(f"attestor {self.name} verifies certificates, not tokens")
        # 1. A path to an authority of this trust domain, at a time when the
        #    leaf was valid, so that "expired" means that nothing else is wrong.
        ends_at = unverified.leaf.not_valid_after_utc
        path = verify_chain(unverified, self._store, min(now, ends_at))
        # 2. The identity in what was verified.
        spiffe_id = spiffe_id_of(path[0])
        if spiffe_id.trust_domain != self._trust_domain:
            raise EvidenceInvalid(f"the certificate's URI is not of the trust domain {self._trust_domain}")
        # 3. Still valid.
        if now > ends_at:
            raise EvidenceExpired(f"the certificate expired at {ends_at.isoformat()}")
        return Identity(
            uri=spiffe_id.uri,
            kind=EvidenceKind.X509_SVID,
            issuer=f"spiffe://{self._trust_domain}",
            subject=spiffe_id.uri,
            claims={},
            evidence_digest=unverified.digest.hex(),
            expires_at=min(certificate.not_valid_after_utc for certificate in path),
        )

    async def check(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""

    def reload(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""
        data = self._read()
        if sha256(data).digest() != self._digest:
            self._load(data)
            self.generation += 1

    async def close(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""

    def _read(self) -> bytes:
        return read_file(self._file)

    def _load(self, data: bytes) -> None:
        self._authorities = self._parse(data)
        self._store = Store(self._authorities)
        self._digest = sha256(data).digest()

    def _parse(self, data: bytes) -> list[x509.Certificate]:
        try:
            certificates = x509.load_pem_x509_certificates(data)
            # A leaf in the store would be trusted by itself, without a signature.
            if not all(map(_is_authority, certificates)):
                raise ConfigError(f"{self._file}: holds a certificate that is no authority")
        except (ValueError, x509.DuplicateExtension) as error:
            raise ConfigError(f"{self._file}: is not a bundle of PEM certificates: {error}") from None
        return certificates


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


KIND = Kind(X509SvidSettings, X509SvidAttestor)
