"""The records that flow through the broker. Frozen, without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from broker.secret import Secret

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = Mapping[str, "JsonValue"]


class Role(StrEnum):
    """What an identity may do beyond an agent's own work."""

    AGENT = "agent"
    ADMIN = "admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


class EvidenceKind(StrEnum):
    """Which kind of evidence an identity comes from."""

    OIDC = "oidc"
    JWT_SVID = "jwt_svid"
    X509_SVID = "x509_svid"


@dataclass(frozen=True, slots=True)
class Proof:
    """One-time evidence, to be consumed once across all replicas.

    Attributes:
        digest: SHA-256 over issuer and ``jti``, lower-case hexadecimal.
        expires_at: When the evidence can no longer be accepted anyway.
    """

    digest: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a caller verifiably is. Only attestors make these.

    Attributes:
        uri: The agent's name: a SPIFFE ID, or ``issuer#subject`` with the
            subject percent-encoded.
        kind: The evidence it comes from.
        issuer: OIDC issuer, or ``spiffe://`` and the trust domain.
        subject: The issuer's name for the caller; the SPIFFE ID for SVIDs.
        claims: All verified claims; empty for X.509.
        evidence_digest: SHA-256 of the whole evidence, hexadecimal.
        expires_at: When the evidence expires.
        proof: Set when the evidence may be used once.
    """

    uri: str
    kind: EvidenceKind
    issuer: str
    subject: str
    claims: JsonObject
    evidence_digest: str
    expires_at: datetime
    proof: Proof | None = None

    @property
    def spiffe_id(self) -> str | None:
        """The SPIFFE ID, for identities from SVIDs."""
        return None if self.kind is EvidenceKind.OIDC else self.uri


@dataclass(frozen=True, slots=True)
class Caller:
    """An identity with the roles that the configuration gives it."""

    identity: Identity
    roles: frozenset[Role]


class TaskState(StrEnum):
    """Where a task is in its life; every state but ACTIVE is final."""

    ACTIVE = "active"
    COMPLETED = "completed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    HEARTBEAT_MISSED = "heartbeat_missed"
    LOCKED = "locked"


class RevocationState(StrEnum):
    """Whether what was issued is gone from Vault."""

    NOT_REQUESTED = "not_requested"
    PENDING = "pending"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What an agent says about the task it starts; validated."""

    purpose: str
    labels: Mapping[str, str]
    timeout: timedelta
    heartbeat_interval: timedelta | None
    declared_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of an agent's work.

    ``revocation_confirmed_at`` is set once everything issued for an ended task
    is confirmed gone (at once when nothing was issued).
    """

    id: str
    agent: str
    purpose: str
    labels: Mapping[str, str]
    declared_scopes: tuple[str, ...]
    state: TaskState
    created_at: datetime
    deadline: datetime
    heartbeat_interval: timedelta | None
    heartbeat_at: datetime | None
    ended_at: datetime | None = None
    revocation_confirmed_at: datetime | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScopeRecord:
    """One stored version of a scope document."""

    name: str
    version: int
    etag: str
    document: str
    created_at: datetime
    creator: str


class Revocability(StrEnum):
    """How a credential can be taken back before its time."""

    INDIVIDUAL = "individual"
    WITH_TASK = "with_task"
    AT_EXPIRY = "at_expiry"


class IssuanceState(StrEnum):
    """Where a credential is in its life."""

    MINTING = "minting"
    ACTIVE = "active"
    REVOKING = "revoking"
    REVOKED = "revoked"
    EXPIRED = "expired"
    FAILED = "failed"


LIVE_ISSUANCES = (IssuanceState.MINTING, IssuanceState.ACTIVE, IssuanceState.REVOKING)


@dataclass(frozen=True, slots=True)
class Issuance:
    """The record of one credential; never the credential itself."""

    id: str
    task_id: str
    anchor_id: str
    agent: str
    scope: str
    scope_version: int
    kind: str
    parameters: JsonObject
    state: IssuanceState
    revocability: Revocability
    renewable: bool
    created_at: datetime
    expires_at: datetime
    max_expires_at: datetime
    fingerprint: str
    accessor: str | None = None
    lease_id: str | None = None
    request_id: str | None = None
    renewed_at: datetime | None = None
    revoke_requested_at: datetime | None = None
    end_reason: str = ""
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which credentials are meant: those that have everything that is given."""

    agent: str | None = None
    scope: str | None = None
    scope_version: int | None = None
    task_id: str | None = None
    issuance_id: str | None = None

    def given(self) -> dict[str, str | int]:
        """Return what is given, by the names of an issuance's fields."""
        fields = {
            "agent": self.agent,
            "scope": self.scope,
            "scope_version": self.scope_version,
            "task_id": self.task_id,
            "id": self.issuance_id,
        }
        return {name: value for name, value in fields.items() if value is not None}


class AnchorState(StrEnum):
    """CREATING: intent only. ACTIVE: accessor known. REVOKING, GONE: its end."""

    CREATING = "creating"
    ACTIVE = "active"
    REVOKING = "revoking"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class AnchorRecord:
    """The stored side of an anchor: everything but its secret."""

    id: str
    task_id: str
    role: str
    replica: str
    state: AnchorState
    accessor: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Anchor:
    """An anchor as its replica holds it: with the secret, in memory only."""

    id: str
    task_id: str
    role: str
    accessor: str
    token: Secret[str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Revocation:
    """One outbox entry: a Vault token to be revoked until that is confirmed.

    Exactly one of ``anchor_id`` and ``issuance_id`` is set: the token is a
    task's anchor, or the token behind one issuance. ``epoch`` counts the claims
    on it; only the newest may record what came of it.
    """

    id: str
    accessor: str
    lease_id: str | None
    task_id: str
    anchor_id: str | None
    issuance_id: str | None
    reason: str
    requested_at: datetime
    attempts: int
    next_attempt_at: datetime
    last_error: str = ""
    confirmed_at: datetime | None = None
    epoch: int = 0
    claimed_by: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Which replica does, until when, what only one may do."""

    name: str
    holder: str
    epoch: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A process that serves, and when it last said so."""

    name: str
    version: str
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of everything there is at a moment, in the whole installation.

    Attributes:
        active_tasks: Tasks that have not ended.
        unconfirmed_tasks: Tasks that have ended while Vault has not confirmed
            that all of theirs is gone.
        live_issuances: Credentials that are minted, out, or being revoked.
        pending_revocations: Vault tokens to be revoked that Vault has not
            confirmed to be gone.
        failing_revocations: Those of them with a failed attempt.
        irrevocable_leases: Those of them with a lease that outlived so many
            attempts that Vault itself may have given it up.
        oldest_pending_at: Since when the longest pending one is asked for.
        locks_in_force: Locks that are neither lifted nor expired.
    """

    active_tasks: int
    unconfirmed_tasks: int
    live_issuances: int
    pending_revocations: int
    failing_revocations: int
    irrevocable_leases: int
    oldest_pending_at: datetime | None
    locks_in_force: int


class LockKind(StrEnum):
    """What a lock holds."""

    AGENT = "agent"
    AGENT_PATTERN = "agent_pattern"
    TASK = "task"
    SCOPE = "scope"


@dataclass(frozen=True, slots=True)
class Lock:
    """The kill switch: refuses while it lasts."""

    id: str
    kind: LockKind
    target: str
    reason: str
    creator: str
    created_at: datetime
    expires_at: datetime | None


class Outcome(StrEnum):
    """How what an event records came out."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One append-only record of a decision or a change."""

    id: str
    time: datetime
    type: str
    outcome: Outcome
    actor: str
    method: str = ""
    reason: str = ""
    detail: str = ""
    agent: str = ""
    task_id: str | None = None
    issuance_id: str | None = None
    scope: str = ""
    scope_version: int | None = None
    peer: str = ""
    attributes: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted.

    Attributes:
        size: Most items to return, 1 to 1000.
        token: Opaque token of an earlier reply, or empty.
        filter: AIP-160 subset, or empty.
    """

    size: int = 50
    token: str = ""
    filter: str = ""
