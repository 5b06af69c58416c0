"""Replies: from the broker's records to messages."""

from datetime import datetime
from typing import Final

from credbroker.v1 import (
    audit_event_pb2,
    credential_service_pb2,
    issuance_pb2,
    lock_pb2,
    revocation_pb2,
    scope_pb2,
    scope_service_pb2,
    task_pb2,
)

from broker import model
from broker.authorize import Explanation
from broker.issue import Issued
from broker.scopes import ScopeView
from broker.serve.convert.structs import write_struct
from broker.serve.convert.times import duration, time

VAULT_TOKEN: Final = "vault_token"  # noqa: S105 - the name of a credential kind

# Built from the records' enums, so that a new member without a counterpart in
# the contract fails when the broker starts, not when it is sent.
_TASK_STATES = {state: task_pb2.TaskState.Value(f"TASK_STATE_{state.name}") for state in model.TaskState}
_ISSUANCE_STATES = {
    state: issuance_pb2.IssuanceState.Value(f"ISSUANCE_STATE_{state.name}") for state in model.IssuanceState
}
_REVOCABILITIES = {how: issuance_pb2.Revocability.Value(f"REVOCABILITY_{how.name}") for how in model.Revocability}
_REVOCATIONS = {
    state: task_pb2.RevocationState.Value(f"REVOCATION_STATE_{state.name}") for state in model.RevocationState
}
_OUTCOMES = {outcome: audit_event_pb2.AuditOutcome.Value(f"AUDIT_OUTCOME_{outcome.name}") for outcome in model.Outcome}


def task(record: model.Task) -> task_pb2.Task:
    """Return a task's message."""
    return task_pb2.Task(
        id=record.id,
        agent=record.agent,
        purpose=record.purpose,
        labels=record.labels,
        declared_scopes=record.declared_scopes,
        state=_TASK_STATES[record.state],
        create_time=time(record.created_at),
        deadline=time(record.deadline),
        heartbeat_interval=duration(record.heartbeat_interval),
        last_heartbeat_time=time(record.heartbeat_at),
        end_time=time(record.ended_at),
        revocation=_REVOCATIONS[_revocation(record.ended_at, record.revocation_confirmed_at)],
        revocation_confirm_time=time(record.revocation_confirmed_at),
    )


def issuance(record: model.Issuance) -> issuance_pb2.Issuance:
    """Return an issuance's message."""
    return issuance_pb2.Issuance(
        id=record.id,
        task_id=record.task_id,
        agent=record.agent,
        scope=record.scope,
        scope_version=record.scope_version,
        parameters=write_struct(record.parameters),
        kind=record.kind,
        state=_ISSUANCE_STATES[record.state],
        revocability=_REVOCABILITIES[record.revocability],
        create_time=time(record.created_at),
        expire_time=time(record.expires_at),
        max_expire_time=time(record.max_expires_at),
        renew_time=time(record.renewed_at),
        revoke_request_time=time(record.revoke_requested_at),
        end_reason=record.end_reason,
        end_time=time(record.ended_at),
        revocation=_REVOCATIONS[_revocation(record.revoke_requested_at, record.ended_at)],
        fingerprint=record.fingerprint,
        vault_accessor=record.accessor or "",
        vault_lease_id=record.lease_id or "",
    )


def credential(issued: Issued, vault_address: str, vault_namespace: str) -> credential_service_pb2.Credential:
    """Return a credential as it is handed out: the one message that holds a secret."""
    record = issued.issuance
    message = credential_service_pb2.Credential(
        issuance_id=record.id,
        expire_time=time(record.expires_at),
        max_expire_time=time(record.max_expires_at),
        renewable=record.renewable,
        revocability=_REVOCABILITIES[record.revocability],
    )
    values = issued.secret.reveal()
    if record.kind == VAULT_TOKEN:
        message.vault_token.token = str(values["token"])
        message.vault_token.vault_address = vault_address
        message.vault_token.vault_namespace = vault_namespace
    else:
        message.leased.data.CopyFrom(write_struct(values))
    return message


def scope(view: ScopeView) -> scope_pb2.Scope:
    """Return a scope's message."""
    record = view.record
    return scope_pb2.Scope(
        name=record.name,
        version=record.version,
        etag=record.etag,
        document=record.document,
        description=view.document.spec.description,
        kind=view.document.spec.credential.kind,
        create_time=time(record.created_at),
        creator=record.creator,
    )


def explanation(found: Explanation) -> scope_service_pb2.ExplainAccessResponse:
    """Return the answer to an admin's question."""
    return scope_service_pb2.ExplainAccessResponse(
        allowed=found.allowed,
        reason=found.reason,
        deciding_rule=found.deciding_rule,
        steps=[
            scope_service_pb2.ExplainStep(rule=step.rule, passed=step.passed, detail=step.detail)
            for step in found.steps
        ],
        scope_version=found.scope_version or 0,
    )


def lock(record: model.Lock) -> lock_pb2.Lock:
    """Return a lock's message."""
    return lock_pb2.Lock(
        id=record.id,
        target=_lock_target(record),
        reason=record.reason,
        creator=record.creator,
        create_time=time(record.created_at),
        expire_time=time(record.expires_at),
    )


def revocation(record: model.Revocation) -> revocation_pb2.Revocation:
    """Return the message of a revocation that is not confirmed yet."""
    return revocation_pb2.Revocation(
        id=record.id,
        task_id=record.task_id,
        issuance_id=record.issuance_id or "",
        vault_accessor=record.accessor,
        vault_lease_id=record.lease_id or "",
        reason=record.reason,
        request_time=time(record.requested_at),
        attempts=record.attempts,
        last_error=record.last_error,
        retry_time=time(record.next_attempt_at),
    )


def audit_event(record: model.AuditEvent) -> audit_event_pb2.AuditEvent:
    """Return an audit event's message."""
    return audit_event_pb2.AuditEvent(
        id=record.id,
        time=time(record.time),
        type=record.type,
        outcome=_OUTCOMES[record.outcome],
        actor=record.actor,
        method=record.method,
        reason=record.reason,
        detail=record.detail,
        agent=record.agent,
        task_id=record.task_id or "",
        issuance_id=record.issuance_id or "",
        scope=record.scope,
        scope_version=record.scope_version or 0,
        peer=record.peer,
        attributes=write_struct(record.attributes),
    )


def _lock_target(record: model.Lock) -> lock_pb2.LockTarget:
    match record.kind:
        case model.LockKind.AGENT:
            return lock_pb2.LockTarget(agent=record.target)
        case model.LockKind.AGENT_PATTERN:
            return lock_pb2.LockTarget(agent_pattern=record.target)
        case model.LockKind.TASK:
            return lock_pb2.LockTarget(task_id=record.target)
        case model.LockKind.SCOPE:
            return lock_pb2.LockTarget(scope=record.target)


def _revocation(decided_at: datetime | None, confirmed_at: datetime | None) -> model.RevocationState:
    if decided_at is None:
        return model.RevocationState.NOT_REQUESTED
    return model.RevocationState.PENDING if confirmed_at is None else model.RevocationState.CONFIRMED
