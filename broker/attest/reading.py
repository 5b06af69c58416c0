"""Reading evidence, and finding out whose it claims to be."""

from collections.abc import Iterator
from hashlib import sha256

from broker.attest.chain import parse_chain
from broker.attest.evidence import BearerToken, Evidence, PeerCertificates
from broker.attest.jws import MAX_TOKEN_CHARS
from broker.attest.kind import Route, Unverified
from broker.attest.spiffe_id import parse_spiffe_id
from broker.attest.token import UnverifiedToken, parse_token
from broker.errors import EvidenceInvalid
from broker.model import EvidenceKind

MAX_CHAIN_BYTES = 64 * 1024


def digest_evidence(evidence: Evidence) -> bytes:
    """Return the SHA-256 of the whole evidence.

    Of a token, it is that of its text. Of a chain, it is over each certificate's
    length in four bytes and its PEM text, so that no two chains look the same.

    Raises:
        EvidenceInvalid: when it is too large to look at, or no ASCII.
    """
    if isinstance(evidence, BearerToken):
        text = evidence.token.reveal()
        if len(text) > MAX_TOKEN_CHARS or not text.isascii():
            raise EvidenceInvalid(f"the token is not ASCII of at most {MAX_TOKEN_CHARS} characters")
        return sha256(text.encode("ascii")).digest()
    if sum(map(len, evidence.chain)) > MAX_CHAIN_BYTES:
        raise EvidenceInvalid(f"the certificate chain is larger than {MAX_CHAIN_BYTES} bytes")
    return sha256(b"".join(len(pem).to_bytes(4) + pem for pem in evidence.chain)).digest()


def read_evidence(evidence: Evidence, digest: bytes) -> Unverified:
    """Read evidence without believing any of it.

    Raises:
        EvidenceInvalid: when it is not well formed.
    """
    if isinstance(evidence, PeerCertificates):
        return parse_chain(evidence.chain, digest)
    return parse_token(evidence.token.reveal(), digest)


def routes_of(unverified: Unverified) -> Iterator[Route]:
    """Yield to whom evidence may belong by what it claims; the first that is configured counts."""
    if not isinstance(unverified, UnverifiedToken):
        yield Route(EvidenceKind.X509_SVID, unverified.unverified_id.trust_domain)
        return
    issuer = unverified.unverified_claims.get("iss")
    if isinstance(issuer, str):
        yield Route(EvidenceKind.OIDC, issuer)
    subject = unverified.unverified_claims.get("sub")
    if isinstance(subject, str) and subject.startswith("spiffe://"):
        try:
            yield Route(EvidenceKind.JWT_SVID, parse_spiffe_id(subject).trust_domain)
        except ValueError as error:
            raise EvidenceInvalid(f"the token's sub {error}") from None
