"""Who calls, as tests say it: known tokens, and certificates by their SPIFFE ID."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from broker.attest.evidence import BearerToken, Evidence, PeerCertificates
from broker.errors import EvidenceInvalid
from broker.model import AuditEvent, Caller, EvidenceKind, Identity, Role

AGENT = "spiffe://example.test/agent"
ADMIN = "spiffe://example.test/admin"
AUDITOR = "spiffe://example.test/auditor"

TOKENS = {
    "agent-token": (AGENT, frozenset({Role.AGENT})),
    "admin-token": (ADMIN, frozenset({Role.AGENT, Role.ADMIN})),
    "auditor-token": (AUDITOR, frozenset({Role.AGENT, Role.AUDITOR})),
}


@dataclass
class FakeIdentify:
    """Takes the place of attestation and roles."""

    seen: list[Evidence | None] = field(default_factory=list)
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, evidence: Evidence | None, now: datetime) -> Caller:
        self.seen.append(evidence)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        match evidence:
            case BearerToken(token) if token.reveal() in TOKENS:
                uri, roles = TOKENS[token.reveal()]
                return _caller(uri, EvidenceKind.JWT_SVID, roles, now)
            case PeerCertificates((leaf, *_)):
                return _caller(_spiffe_id(leaf), EvidenceKind.X509_SVID, frozenset({Role.AGENT}), now)
            case _:
                raise EvidenceInvalid("the token is not known")


class Trail:
    """Where the events of refusals go."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.error: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._waiting = asyncio.Event()

    def pause(self) -> None:
        """Let writes wait from now on."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def until_waiting(self) -> None:
        """Wait until a write waits."""
        await self._waiting.wait()

    async def write(self, event: AuditEvent) -> None:
        if not self._open.is_set():
            self._waiting.set()
        await self._open.wait()
        if self.error is not None:
            raise self.error
        self.events.append(event)


def _caller(uri: str, kind: EvidenceKind, roles: frozenset[Role], now: datetime) -> Caller:
    identity = Identity(
        uri=uri,
        kind=kind,
        issuer="spiffe://example.test",
        subject=uri,
        claims={},
        evidence_digest="d" * 64,
        expires_at=now + timedelta(hours=1),
    )
    return Caller(identity, roles)


def _spiffe_id(leaf: bytes) -> str:
    names = x509.load_pem_x509_certificate(leaf).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]
