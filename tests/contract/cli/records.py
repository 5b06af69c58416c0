"""Records as a broker would hold them."""

from datetime import timedelta

from credbroker.v1.audit_event_pb2 import AUDIT_OUTCOME_DENIED, AUDIT_OUTCOME_SUCCESS, AuditEvent
from credbroker.v1.issuance_pb2 import ISSUANCE_STATE_REVOKED, REVOCABILITY_WITH_TASK, Issuance
from credbroker.v1.task_pb2 import REVOCATION_STATE_CONFIRMED, TASK_STATE_COMPLETED, Task

from tests.fakes.operators import NOW

AGENT = "spiffe://example.test/agents/reports"
TASK_ID = "0190a5b2-1111-7000-8000-0000000000aa"
ISSUANCE_ID = "0190a5b2-2222-7000-8000-0000000000bb"

NO_TASK, NO_ISSUANCE, NO_EVENT = Task(), Issuance(), AuditEvent()


def task(number: int = 0xAA, changes: Task = NO_TASK) -> Task:
    made = Task(
        id=f"0190a5b2-1111-7000-8000-{number:012x}",
        agent=AGENT,
        purpose="the quarterly report",
        labels={"env": "prod", "team": "data"},
        declared_scopes=["reports-db"],
        state=TASK_STATE_COMPLETED,
        revocation=REVOCATION_STATE_CONFIRMED,
    )
    made.create_time.FromDatetime(NOW)
    made.deadline.FromDatetime(NOW + timedelta(hours=1))
    made.end_time.FromDatetime(NOW + timedelta(seconds=2))
    made.revocation_confirm_time.FromDatetime(NOW + timedelta(seconds=3))
    made.heartbeat_interval.FromTimedelta(timedelta(seconds=30))
    made.last_heartbeat_time.FromDatetime(NOW)
    made.MergeFrom(changes)
    return made


def issuance(number: int = 0xBB, changes: Issuance = NO_ISSUANCE) -> Issuance:
    made = Issuance(
        id=f"0190a5b2-2222-7000-8000-{number:012x}",
        task_id=TASK_ID,
        agent=AGENT,
        scope="reports-db",
        scope_version=3,
        kind="leased",
        state=ISSUANCE_STATE_REVOKED,
        revocability=REVOCABILITY_WITH_TASK,
        end_reason="task.completed",
        revocation=REVOCATION_STATE_CONFIRMED,
        fingerprint="3f" * 32,
        vault_accessor="hmac-accessor",
        vault_lease_id="database/creds/reader/abc",
    )
    made.parameters.update({"role": "reader", "rows": 5})
    made.create_time.FromDatetime(NOW)
    made.expire_time.FromDatetime(NOW + timedelta(minutes=15))
    made.max_expire_time.FromDatetime(NOW + timedelta(hours=1))
    made.revoke_request_time.FromDatetime(NOW + timedelta(seconds=2))
    made.end_time.FromDatetime(NOW + timedelta(seconds=3))
    made.MergeFrom(changes)
    return made


def event(kind: str, seconds: float = 0, changes: AuditEvent = NO_EVENT) -> AuditEvent:
    made = AuditEvent(
        id="0190a5b2-3333-7000-8000-000000000001",
        type=kind,
        outcome=AUDIT_OUTCOME_SUCCESS,
        actor=AGENT,
        agent=AGENT,
        task_id=TASK_ID,
    )
    made.time.FromDatetime(NOW + timedelta(seconds=seconds))
    made.MergeFrom(changes)
    return made


def life() -> list[AuditEvent]:
    of_it = AuditEvent(issuance_id=ISSUANCE_ID, scope="reports-db", scope_version=3)
    issued = event("credential.issued", 1, of_it)
    issued.attributes.update({"ttl_seconds": 900, "evidence_sha256": "ee" * 32})
    refused = AuditEvent(
        outcome=AUDIT_OUTCOME_DENIED,
        scope="payments-admin",
        reason="SCOPE_DENIED",
        detail="spec.who: nobody of these\x1b[2J",
    )
    of_it.actor = "broker"
    return [
        event("task.started"),
        issued,
        event("request.refused", 1.5, refused),
        event("task.completed", 2),
        event("credential.revoked", 3, of_it),
    ]
