"""Every error this library raises on purpose, in one tree.

::

    credbroker.Error
    ├── Misconfigured            the client cannot work as it was set up; nothing was sent
    ├── Unauthenticated          the broker does not know who you are
    │   ├── EvidenceMissing      EVIDENCE_MISSING
    │   ├── EvidenceInvalid      EVIDENCE_INVALID
    │   ├── EvidenceExpired      EVIDENCE_EXPIRED
    │   └── EvidenceReplayed     EVIDENCE_REPLAYED: one-time evidence was used twice
    ├── PermissionDenied         you may not have this
    │   ├── RoleRequired         ROLE_REQUIRED
    │   ├── ScopeDenied          SCOPE_DENIED
    │   ├── ScopeNotDeclared     SCOPE_NOT_DECLARED
    │   └── Locked               LOCKED: an admin's kill switch
    ├── InvalidRequest           the request itself is wrong; `violations` says where
    │   ├── ParametersInvalid    PARAMETERS_INVALID
    │   └── TtlExceeded          TTL_EXCEEDED
    ├── NotFound                 there is no such thing, or it is somebody else's
    │   ├── TaskNotFound         TASK_NOT_FOUND
    │   └── CredentialNotFound   ISSUANCE_NOT_FOUND
    ├── FailedPrecondition       not in the state it is in
    │   ├── TaskEnded            TASK_ENDED
    │   ├── CredentialEnded      ISSUANCE_ENDED
    │   │   └── CredentialExpired    its time ran out (found out by this library)
    │   ├── NotRenewable         NOT_RENEWABLE
    │   └── NotRevocable         NOT_REVOCABLE
    ├── AlreadyExists
    │   └── RequestIdReused      REQUEST_ID_REUSED: handled by this library
    ├── LimitReached             LIMIT_REACHED; `retry_after` says when to try again
    ├── Unavailable              retried by this library until its time was up
    │   ├── Overloaded           OVERLOADED
    │   ├── VaultUnavailable     VAULT_UNAVAILABLE
    │   ├── StoreUnavailable     STORE_UNAVAILABLE
    │   ├── ClockUncertain       CLOCK_UNCERTAIN
    │   ├── KeysUnavailable      ISSUER_KEYS_UNAVAILABLE
    │   ├── TimedOut             no answer in time
    │   └── Unreachable          no connection; nothing was sent
    │       └── Untrusted        the TLS handshake failed; not retried
    └── BrokerFailed             the broker failed, or answered in an unknown way
        └── MintFailed           MINT_FAILED: Vault refused; an admin must act

The capitals are the stable reasons of ``google.rpc.ErrorInfo`` (domain
``credbroker.dev``). A reason this version does not know becomes the class of
its gRPC code. No error holds a secret, nor the gRPC error it came from.
Misuse, such as a wrong type, is a ``TypeError``, ``ValueError`` or
``RuntimeError`` and not part of this tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request, and what was expected."""

    field: str
    description: str


class Error(Exception):
    """Something the broker, or this library on its behalf, did not do.

    ``str()`` gives the message, the reason and what to do next.

    Attributes:
        reason: The stable reason, such as ``SCOPE_DENIED``; empty when the
            broker gave none.
        message: What the broker said.
        violations: Wrong fields, for `InvalidRequest`.
        metadata: Further facts by name, such as ``issuance_id``.
        retry_after: When trying again may help, if the broker said so.
    """

    default_reason: ClassVar[str] = ""
    hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        self.message = message
        self.reason = self.default_reason if reason is None else reason
        self.violations = violations
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        text = self.message
        if self.violations:
            text += ": " + "; ".join(f"{item.field}: {item.description}" for item in self.violations)
        if self.reason:
            text += f" [{self.reason}]"
        if self.retry_after is not None:
            text += f"; try again in {self.retry_after.total_seconds():g} s"
        return f"{text}; {self.hint}" if self.hint else text


class Misconfigured(Error):
    """The client cannot work as it was set up; nothing was sent."""


class Unauthenticated(Error):
    """The broker does not know who you are."""

    hint = "check the evidence that this client was given"


class EvidenceMissing(Unauthenticated):
    """The broker saw no evidence."""

    default_reason = "EVIDENCE_MISSING"
    hint = "pass token=, token_file= or certificate_file= with key_file=, and use the matching listener's address"


class EvidenceInvalid(Unauthenticated):
    """The evidence was not accepted."""

    default_reason = "EVIDENCE_INVALID"
    hint = "check its issuer and audience with your admins"


class EvidenceExpired(Unauthenticated):
    """The evidence was genuine and is too old."""

    default_reason = "EVIDENCE_EXPIRED"
    hint = "pass token= a callable, or token_file=, so that every call uses a fresh one"


class EvidenceReplayed(Unauthenticated):
    """One-time evidence was used twice."""

    default_reason = "EVIDENCE_REPLAYED"
    hint = "pass token= a callable that obtains a new token each time it is called"


class PermissionDenied(Error):
    """You may not have this."""


class RoleRequired(PermissionDenied):
    """The call is for a role that you do not have."""

    default_reason = "ROLE_REQUIRED"


class ScopeDenied(PermissionDenied):
    """The scope was not granted; whether it exists is not said."""

    default_reason = "SCOPE_DENIED"
    hint = "check the scope's name, the parameters and the task's labels"


class ScopeNotDeclared(PermissionDenied):
    """The task declared its scopes, and this is none of them."""

    default_reason = "SCOPE_NOT_DECLARED"
    hint = "add it to scopes= of client.task()"


class Locked(PermissionDenied):
    """An admin's kill switch holds the agent, the task or the scope."""

    default_reason = "LOCKED"


class InvalidRequest(Error):
    """The request itself is wrong; `violations` says where."""


class ParametersInvalid(InvalidRequest):
    """The parameters do not satisfy the scope's schema."""

    default_reason = "PARAMETERS_INVALID"


class TtlExceeded(InvalidRequest):
    """The time to live is beyond the scope's maximum."""

    default_reason = "TTL_EXCEEDED"
    hint = "ask for less, or leave ttl out for the scope's default"


class NotFound(Error):
    """There is no such thing, or it is somebody else's."""


class TaskNotFound(NotFound):
    """You have no such task."""

    default_reason = "TASK_NOT_FOUND"


class CredentialNotFound(NotFound):
    """You have no such credential."""

    default_reason = "ISSUANCE_NOT_FOUND"


class FailedPrecondition(Error):
    """It is not in a state that allows this."""


class TaskEnded(FailedPrecondition):
    """The task has ended, and its credentials with it."""

    default_reason = "TASK_ENDED"
    hint = "start another with client.task()"


class CredentialEnded(FailedPrecondition):
    """The credential has ended."""

    default_reason = "ISSUANCE_ENDED"
    hint = "ask for another with task.credential()"


class CredentialExpired(CredentialEnded):
    """The credential's time ran out."""

    default_reason = ""
    hint = "use credential.fresh() before each use"


class NotRenewable(FailedPrecondition):
    """The credential cannot be prolonged."""

    default_reason = "NOT_RENEWABLE"
    hint = "credential.fresh() issues a new one when needed"


class NotRevocable(FailedPrecondition):
    """The credential cannot be taken back by itself."""

    default_reason = "NOT_REVOCABLE"
    hint = "complete the task to end it"


class AlreadyExists(Error):
    """There is such a thing already."""


class RequestIdReused(AlreadyExists):
    """A request with this id was granted before, and its reply was lost."""

    default_reason = "REQUEST_ID_REUSED"


class LimitReached(Error):
    """A limit was reached; `retry_after` says when to try again, if that helps."""

    default_reason = "LIMIT_REACHED"
    hint = "revoke credentials or complete tasks that you no longer need"


class Unavailable(Error):
    """The broker, or what it needs, is away."""

    hint = "try again later"


class Overloaded(Unavailable):
    """The broker has as much work as it takes on at once."""

    default_reason = "OVERLOADED"


class VaultUnavailable(Unavailable):
    """The broker cannot reach Vault."""

    default_reason = "VAULT_UNAVAILABLE"


class StoreUnavailable(Unavailable):
    """The broker cannot reach its database."""

    default_reason = "STORE_UNAVAILABLE"


class ClockUncertain(Unavailable):
    """The broker cannot trust its clock."""

    default_reason = "CLOCK_UNCERTAIN"


class KeysUnavailable(Unavailable):
    """The broker cannot read the keys of your evidence's issuer."""

    default_reason = "ISSUER_KEYS_UNAVAILABLE"


class TimedOut(Unavailable):
    """No answer came in time."""

    hint = "check the address, or pass a longer timeout="


class Unreachable(Unavailable):
    """No connection to the broker could be made; nothing was sent."""

    hint = "check the address, and that the broker runs"


class Untrusted(Unreachable):
    """The TLS handshake with the broker failed; not tried again."""

    hint = "check the address, ca_file= (CREDBROKER_CA_FILE), and that the certificate names the host"


class BrokerFailed(Error):
    """The broker failed, or answered in a way that this version does not know."""

    hint = "ask your admins, the audit trail has the reason"


class MintFailed(BrokerFailed):
    """Vault refused to make the credential; trying again will not help."""

    default_reason = "MINT_FAILED"


def _known(base: type[Error]) -> dict[str, type[Error]]:
    found = {base.default_reason: base} if base.default_reason else {}
    for subclass in base.__subclasses__():
        found |= _known(subclass)
    return found


BY_REASON: Mapping[str, type[Error]] = MappingProxyType(_known(Error))
