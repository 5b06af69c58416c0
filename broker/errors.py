"""Every error the broker raises on purpose, in one tree.

::

    BrokerError
    ├── Unauthenticated          no identity could be established
    │   ├── EvidenceMissing      EVIDENCE_MISSING
    │   ├── EvidenceInvalid      EVIDENCE_INVALID
    │   ├── EvidenceExpired      EVIDENCE_EXPIRED
    │   └── EvidenceReplayed     EVIDENCE_REPLAYED
    ├── PermissionDenied         the identity may not do this
    │   ├── RoleRequired         ROLE_REQUIRED
    │   ├── ScopeDenied          SCOPE_DENIED
    │   ├── ScopeNotDeclared     SCOPE_NOT_DECLARED
    │   └── Locked               LOCKED
    ├── InvalidArgument          INVALID_ARGUMENT: the request itself is wrong
    │   ├── ParametersInvalid    PARAMETERS_INVALID
    │   ├── TtlExceeded          TTL_EXCEEDED
    │   ├── ScopeDocumentInvalid SCOPE_DOCUMENT_INVALID
    │   ├── FilterInvalid        FILTER_INVALID
    │   └── PageTokenInvalid     PAGE_TOKEN_INVALID
    ├── NotFound
    │   ├── TaskNotFound         TASK_NOT_FOUND
    │   ├── IssuanceNotFound     ISSUANCE_NOT_FOUND
    │   ├── ScopeNotFound        SCOPE_NOT_FOUND
    │   └── LockNotFound         LOCK_NOT_FOUND
    ├── FailedPrecondition
    │   ├── TaskEnded            TASK_ENDED
    │   ├── IssuanceEnded        ISSUANCE_ENDED
    │   ├── NotRenewable         NOT_RENEWABLE
    │   └── NotRevocable         NOT_REVOCABLE
    ├── AlreadyExists
    │   ├── RequestIdReused      REQUEST_ID_REUSED
    │   └── ScopeExists          SCOPE_EXISTS
    ├── Aborted
    │   └── EtagMismatch         ETAG_MISMATCH
    ├── ResourceExhausted
    │   ├── LimitReached         LIMIT_REACHED
    │   └── Overloaded           OVERLOADED
    ├── Unavailable              try again later
    │   ├── VaultUnavailable     VAULT_UNAVAILABLE
    │   │   └── VaultAway        VAULT_UNAVAILABLE
    │   ├── StoreUnavailable     STORE_UNAVAILABLE
    │   ├── ClockUncertain       CLOCK_UNCERTAIN
    │   └── KeysUnavailable      ISSUER_KEYS_UNAVAILABLE
    ├── MintFailed               MINT_FAILED: Vault refused; an admin must act
    ├── DeadlineExceeded         DEADLINE_EXCEEDED
    └── ConfigError              bad configuration; never reaches a caller

The first line of each class says what the caller is told. ``detail`` is for
the audit trail and the operators' logs alone. Misuse by the broker's own code
is a ``RuntimeError`` or ``TypeError`` and not part of this tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request or document, and what was expected."""

    field: str
    description: str


class BrokerError(Exception):
    """The broker could not do what was asked.

    Args:
        detail: The full reason, for the audit trail. Never a secret.
        message: What the caller is told; by default the class's own text.
        violations: Wrong fields, sent as ``google.rpc.BadRequest``.
        metadata: Facts sent as ``google.rpc.ErrorInfo.metadata``.
        retry_after: When to try again, sent as ``google.rpc.RetryInfo``.
    """

    reason: ClassVar[str] = "INTERNAL"
    message: str = "the broker failed; the audit trail has the reason"

    def __init__(
        self,
        detail: str = "",
        *,
        message: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        if message is not None:
            self.message = message
        self.detail = detail or self.message
        self.violations = violations
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        super().__init__(self.detail)


class Unauthenticated(BrokerError):
    """No identity could be established."""

    reason = "UNAUTHENTICATED"


class EvidenceMissing(Unauthenticated):
    """The request carries no evidence."""

    reason = "EVIDENCE_MISSING"
    message = (
        "no evidence of identity: send a bearer token in the authorization metadata, "
        "or connect to the mutual-TLS listener with an X.509-SVID"
    )


class EvidenceInvalid(Unauthenticated):
    """The evidence was not accepted; the caller is not told why."""

    reason = "EVIDENCE_INVALID"
    message = "the evidence of identity was not accepted; the audit trail has the reason"


class EvidenceExpired(Unauthenticated):
    """The evidence is genuine and has expired."""

    reason = "EVIDENCE_EXPIRED"
    message = "the evidence of identity has expired; obtain a fresh one and try again"


class EvidenceReplayed(Unauthenticated):
    """One-time evidence was used before."""

    reason = "EVIDENCE_REPLAYED"
    message = "this one-time evidence was used before; obtain a fresh one for every request"


class PermissionDenied(BrokerError):
    """The identity may not do this."""

    reason = "PERMISSION_DENIED"


class RoleRequired(PermissionDenied):
    """The RPC is for a role that the caller does not have."""

    reason = "ROLE_REQUIRED"
    message = "this call needs a role that your identity does not have"


class ScopeDenied(PermissionDenied):
    """The scope is not granted; whether it exists is not said."""

    reason = "SCOPE_DENIED"
    message = "the scope was not granted; an admin can see why with `broker scopes explain`"


class ScopeNotDeclared(PermissionDenied):
    """The task declared its scopes and this is none of them."""

    reason = "SCOPE_NOT_DECLARED"
    message = "the task did not declare this scope when it started; start a task that declares it"


class Locked(PermissionDenied):
    """A lock holds the agent, the task or the scope."""

    reason = "LOCKED"
    message = "an admin's lock is in force; ask your admins"


class InvalidArgument(BrokerError):
    """The request itself is wrong, whoever sends it."""

    reason = "INVALID_ARGUMENT"
    message = "the request is not valid"


class ParametersInvalid(InvalidArgument):
    """The parameters do not satisfy the scope's schema."""

    reason = "PARAMETERS_INVALID"
    message = "the parameters do not satisfy the scope's schema"


class TtlExceeded(InvalidArgument):
    """The time to live is beyond the scope's maximum."""

    reason = "TTL_EXCEEDED"
    message = "the time to live asked for is beyond the scope's maximum"


class ScopeDocumentInvalid(InvalidArgument):
    """The scope document is wrong; the violations say where."""

    reason = "SCOPE_DOCUMENT_INVALID"
    message = "the scope document is not valid"


class FilterInvalid(InvalidArgument):
    """The list filter cannot be understood."""

    reason = "FILTER_INVALID"
    message = "the filter is not valid"


class PageTokenInvalid(InvalidArgument):
    """The page token is not one that this query gave."""

    reason = "PAGE_TOKEN_INVALID"
    message = "the page token does not belong to this request; start again without one"


class NotFound(BrokerError):
    """There is no such thing, or it is somebody else's."""

    reason = "NOT_FOUND"


class TaskNotFound(NotFound):
    """The caller has no such task."""

    reason = "TASK_NOT_FOUND"
    message = "you have no such task"


class IssuanceNotFound(NotFound):
    """There is no such issuance for the caller."""

    reason = "ISSUANCE_NOT_FOUND"
    message = "there is no such issuance"


class ScopeNotFound(NotFound):
    """There is no such scope (for admins and auditors only)."""

    reason = "SCOPE_NOT_FOUND"
    message = "there is no such scope"


class LockNotFound(NotFound):
    """There is no such lock in force."""

    reason = "LOCK_NOT_FOUND"
    message = "there is no such lock in force"


class FailedPrecondition(BrokerError):
    """The thing is not in a state that allows this."""

    reason = "FAILED_PRECONDITION"


class TaskEnded(FailedPrecondition):
    """The task has ended."""

    reason = "TASK_ENDED"
    message = "the task has ended; start a new one"


class IssuanceEnded(FailedPrecondition):
    """The credential has ended."""

    reason = "ISSUANCE_ENDED"
    message = "the credential has ended; issue a new one"


class NotRenewable(FailedPrecondition):
    """The credential cannot be prolonged."""

    reason = "NOT_RENEWABLE"
    message = "this credential cannot be renewed; issue a new one"


class NotRevocable(FailedPrecondition):
    """The credential cannot be taken back by itself."""

    reason = "NOT_REVOCABLE"
    message = "this credential cannot be revoked by itself; it dies when its task completes"


class AlreadyExists(BrokerError):
    """There is such a thing already."""

    reason = "ALREADY_EXISTS"


class RequestIdReused(AlreadyExists):
    """A request with this id was granted before."""

    reason = "REQUEST_ID_REUSED"
    message = "a request with this request_id was granted before; use a fresh one"


class ScopeExists(AlreadyExists):
    """There is a scope of this name."""

    reason = "SCOPE_EXISTS"
    message = "a scope of this name exists; update it instead"


class Aborted(BrokerError):
    """Somebody else changed the thing meanwhile."""

    reason = "ABORTED"


class EtagMismatch(Aborted):
    """The etag is not the current one."""

    reason = "ETAG_MISMATCH"
    message = "the scope was changed by somebody else; read it again and repeat your change"


class ResourceExhausted(BrokerError):
    """A limit was reached."""

    reason = "RESOURCE_EXHAUSTED"


class LimitReached(ResourceExhausted):
    """A limit of the scope was reached; the message says which."""

    reason = "LIMIT_REACHED"
    message = "a limit of the scope was reached"


class Overloaded(ResourceExhausted):
    """The broker has as much work as it takes on at once."""

    reason = "OVERLOADED"
    message = "the broker is busy; try again shortly"


class Unavailable(BrokerError):
    """Something the broker needs is away; trying again may help."""

    reason = "UNAVAILABLE"


class VaultUnavailable(Unavailable):
    """Vault did not answer, or not as it should: perhaps it acted all the same."""

    reason = "VAULT_UNAVAILABLE"
    message = "Vault cannot be reached; try again shortly"


class VaultAway(VaultUnavailable):
    """Vault was not reached, or turned the request away before looking at it: it did nothing."""


class StoreUnavailable(Unavailable):
    """The database did not answer: perhaps it committed all the same."""

    reason = "STORE_UNAVAILABLE"
    message = "the broker's database cannot be reached; try again shortly"


class ClockUncertain(Unavailable):
    """The broker's clock and Vault's differ by more than is allowed, or Vault has not told its time yet."""

    reason = "CLOCK_UNCERTAIN"
    message = "the broker's clock cannot be trusted at the moment; try again shortly"


class KeysUnavailable(Unavailable):
    """The keys of the evidence's issuer cannot be had at the moment."""

    reason = "ISSUER_KEYS_UNAVAILABLE"
    message = "the keys of your issuer cannot be read at the moment; try again shortly"


class MintFailed(BrokerError):
    """Vault refused to mint; trying again will not help."""

    reason = "MINT_FAILED"
    message = "the credential could not be minted; ask your admins, the audit trail has the reason"


class DeadlineExceeded(BrokerError):
    """The request's time is over."""

    reason = "DEADLINE_EXCEEDED"
    message = "there was too little time for this request; allow it longer and try again"


class ConfigError(BrokerError):
    """The configuration is wrong: file, path in it, what was expected."""

    reason = "CONFIG_INVALID"
    message = "the configuration is not valid"
