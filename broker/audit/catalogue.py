"""The types of audit events. docs/audit-events.md explains each to auditors."""

from typing import Final

REQUEST_REFUSED: Final = "request.refused"
REQUEST_FAILED: Final = "request.failed"

TASK_STARTED: Final = "task.started"
TASK_COMPLETED: Final = "task.completed"
TASK_DEADLINE_EXCEEDED: Final = "task.deadline_exceeded"
TASK_HEARTBEAT_MISSED: Final = "task.heartbeat_missed"
TASK_LOCKED: Final = "task.locked"
TASK_REVOCATION_CONFIRMED: Final = "task.revocation_confirmed"

CREDENTIAL_REQUESTED: Final = "credential.requested"
CREDENTIAL_ISSUED: Final = "credential.issued"
CREDENTIAL_MINT_FAILED: Final = "credential.mint_failed"
CREDENTIAL_RENEWED: Final = "credential.renewed"
CREDENTIAL_REVOCATION_REQUESTED: Final = "credential.revocation_requested"
CREDENTIAL_REVOKED: Final = "credential.revoked"
CREDENTIAL_EXPIRED: Final = "credential.expired"

SCOPE_CREATED: Final = "scope.created"
SCOPE_UPDATED: Final = "scope.updated"
SCOPE_DELETED: Final = "scope.deleted"
SCOPE_ACCESS_EXPLAINED: Final = "scope.access_explained"

UNRECORDED_IN_VAULT: Final = "vault.token_unrecorded"
REVOCATION_ORDERED: Final = "revocation.ordered"

LOCK_CREATED: Final = "lock.created"
LOCK_ENFORCED: Final = "lock.enforced"
LOCK_LIFTED: Final = "lock.lifted"

AUDIT_ISSUANCES_LISTED: Final = "audit.issuances_listed"
AUDIT_ISSUANCE_READ: Final = "audit.issuance_read"
AUDIT_EVENTS_LISTED: Final = "audit.events_listed"

EVENT_TYPES: Final = frozenset(value for name, value in globals().items() if name.isupper() and isinstance(value, str))
