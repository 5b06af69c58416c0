"""Finding a request's evidence; whether it is worth anything is the attestors' business."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from broker.attest.evidence import BearerToken, Evidence, PeerCertificates
from broker.errors import EvidenceInvalid, EvidenceMissing
from broker.secret import Secret

MAX_TOKEN_CHARS: Final = 16 * 1024
MAX_CERTIFICATE_BYTES: Final = 64 * 1024

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

# RFC 6750, section 2.1: one space, then b64token.
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/-]+=*)")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?")


def find_evidence(metadata: Metadata, connection: Mapping[str, Iterable[bytes]]) -> Evidence:
    """Return the one piece of evidence that a request carries.

    Args:
        metadata: The request's metadata.
        connection: gRPC's properties of the connection, with the certificates
            that the TLS handshake has verified.

    Raises:
        EvidenceMissing: when there is none.
        EvidenceInvalid: when it is malformed, or when there is more than one
            piece: a bad token must not hide behind a good certificate.
    """
    headers = [value for key, value in metadata if key == "authorization"]
    certificates = _certificates(connection)
    if headers and certificates:
        raise EvidenceInvalid("both a client certificate and authorization metadata were sent")
    if certificates:
        return PeerCertificates(certificates)
    if not headers:
        raise EvidenceMissing
    if len(headers) > 1:
        raise EvidenceInvalid(f"authorization metadata was sent {len(headers)} times")
    return _bearer(headers[0])


def _bearer(header: str | bytes) -> BearerToken:
    if not isinstance(header, str):
        raise EvidenceInvalid("the authorization metadata is not text")
    if len(header) > len("Bearer ") + MAX_TOKEN_CHARS:
        raise EvidenceInvalid(f"the bearer token is longer than {MAX_TOKEN_CHARS} characters")
    match = _BEARER.fullmatch(header)
    if match is None:
        raise EvidenceInvalid("the authorization metadata is not `Bearer` and one token")
    return BearerToken(Secret(match[1]))


def _certificates(connection: Mapping[str, Iterable[bytes]]) -> tuple[bytes, ...]:
    """Return the peer's chain, leaf first; its leaf alone where that is all gRPC tells."""
    values = connection.get("x509_pem_cert_chain") or connection.get("x509_pem_cert") or ()
    pem = b"".join(values)
    if not pem:
        return ()
    if len(pem) > MAX_CERTIFICATE_BYTES:
        raise EvidenceInvalid(f"the client certificates are larger than {MAX_CERTIFICATE_BYTES} bytes")
    found = tuple(_CERTIFICATE.findall(pem))
    if not found:
        raise EvidenceInvalid("the client certificate cannot be read")
    return found
