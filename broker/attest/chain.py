"""Certificate chains of mutual-TLS peers, before anything about them is believed."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from broker.attest.spiffe_id import SpiffeId, parse_spiffe_id
from broker.errors import EvidenceInvalid

MAX_CERTIFICATES: Final = 6


@dataclass(frozen=True, slots=True)
class UnverifiedChain:
    """A readable chain that anybody may have put together.

    Attributes:
        leaf: The peer's certificate.
        intermediates: What else the peer sent, in its order.
        unverified_id: What the leaf claims; good for finding out whose
            authorities to try, and for nothing else.
        digest: SHA-256 over the whole chain.
    """

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    unverified_id: SpiffeId
    digest: bytes


def parse_chain(chain: Sequence[bytes], digest: bytes) -> UnverifiedChain:
    """Read a chain of PEM certificates, leaf first.

    Raises:
        EvidenceInvalid: when it is empty, too long or not well formed.
    """
    if not 0 < len(chain) <= MAX_CERTIFICATES:
        raise EvidenceInvalid(f"the certificate chain does not have 1 to {MAX_CERTIFICATES} certificates")
    leaf, *intermediates = [_parse_certificate(index, pem) for index, pem in enumerate(chain)]
    return UnverifiedChain(leaf, tuple(intermediates), spiffe_id_of(leaf), digest)


def spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """Return the SPIFFE ID in a certificate (X509-SVID, section 2).

    Raises:
        EvidenceInvalid: when it does not have exactly one URI, or that is no
            workload's SPIFFE ID.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        raise EvidenceInvalid("the certificate has no readable subject alternative name") from None
    if len(uris) != 1:
        raise EvidenceInvalid(f"the certificate has {len(uris)} URIs instead of one")
    try:
        return parse_spiffe_id(uris[0])
    except ValueError as error:
        raise EvidenceInvalid(f"the certificate's URI {error}") from None


def _parse_certificate(index: int, pem: bytes) -> x509.Certificate:
    try:
        # What the library only warns of breaks RFC 5280: a serial number of zero, for example.
        with warnings.catch_warnings(action="error", category=CryptographyDeprecationWarning):
            certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion, CryptographyDeprecationWarning):
        raise EvidenceInvalid(f"certificate {index} of the chain cannot be read") from None
    if len(certificates) != 1:
        raise EvidenceInvalid(f"certificate {index} of the chain is {len(certificates)} certificates")
    return certificates[0]
