"""Evidence as it arrives: unverified, and typed so that nothing mistakes it for more."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from broker.model import Identity
from broker.secret import SecretText


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token from the authorization metadata, without its scheme."""

    token: SecretText


@dataclass(frozen=True, slots=True)
class PeerCertificates:
    """The certificate chain of a mutual-TLS peer, leaf first, PEM."""

    chain: tuple[bytes, ...]


Evidence: TypeAlias = BearerToken | PeerCertificates


class Attestor(Protocol):
    """Turns one kind of evidence into an identity."""

    async def attest(self, evidence: Evidence, now: datetime) -> Identity:
        """Verify the evidence.

        Raises:
            EvidenceInvalid: when it is not acceptable; ``detail`` says why.
            EvidenceExpired: when it is genuine and has expired.
            KeysUnavailable: when the issuer's keys cannot be had.
        """
        ...
