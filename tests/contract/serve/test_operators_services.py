"""Operators' RPCs: what each hands to its workflow, and what it makes of the answer."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from credbroker.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    lock_pb2,
    lock_service_pb2,
    scope_service_pb2,
    task_pb2,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from broker.model import AuditEvent, LockKind, Outcome, Page
from broker.scopes import Question
from tests.contract.serve.harness import Harness, refusal
from tests.fakes.identify import ADMIN, AGENT

if TYPE_CHECKING:
    # Only the stubs know the asynchronous ones by name.
    from credbroker.v1.audit_service_pb2_grpc import AuditServiceAsyncStub
    from credbroker.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub
    from credbroker.v1.lock_service_pb2_grpc import LockServiceAsyncStub
    from credbroker.v1.scope_service_pb2_grpc import ScopeServiceAsyncStub


NOW = datetime(2026, 1, 1, tzinfo=UTC)
UUID = "0190a6f2-7b1c-7def-8123-456789abcdef"
DOCUMENT = """\
apiVersion: credbroker.dev/v1
kind: Scope
metadata: {name: orders}
spec:
  description: Read the orders
  who: [{spiffeId: "spiffe://example.test/*"}]
  credential: {kind: vault_token, rules: [{path: secret/data/orders, capabilities: [read]}]}
  ttl: {default: 5m, max: 10m}
"""


async def test_create_get_list_update_and_delete_a_scope(running: Harness, scopes: "ScopeServiceAsyncStub") -> None:
    checked = await scopes.CreateScope(scope_service_pb2.CreateScopeRequest(document=DOCUMENT, validate_only=True))
    assert running.scopes.scopes == {}
    created = (await scopes.CreateScope(scope_service_pb2.CreateScopeRequest(document=DOCUMENT))).scope
    assert created == checked.scope
    assert MessageToDict(created) == {
        "name": "orders",
        "version": "1",
        "etag": "etag-1",
        "document": DOCUMENT,
        "description": "Read the orders",
        "kind": "vault_token",
        "createTime": "2026-01-01T00:00:00Z",
        "creator": ADMIN,
    }
    assert (await scopes.GetScope(scope_service_pb2.GetScopeRequest(name="orders"))).scope == created
    await scopes.GetScope(scope_service_pb2.GetScopeRequest(name="orders", version=1))
    assert running.scopes.versions == [None, 1]
    listed = await scopes.ListScopes(scope_service_pb2.ListScopesRequest(page_size=7, page_token="t"))
    assert list(listed.scopes) == [created]
    assert listed.next_page_token == ""
    assert running.scopes.pages == [Page(7, "t")]
    change = scope_service_pb2.UpdateScopeRequest(document=DOCUMENT, etag="etag-1")
    assert (await scopes.UpdateScope(change)).scope.version == 2
    await scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(name="orders", etag="etag-2"))
    assert running.scopes.scopes == {}


async def test_wrong_document_is_told_by_path(scopes: "ScopeServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scopes.CreateScope(scope_service_pb2.CreateScopeRequest(document=DOCUMENT.replace("max: 10m", "max: 1m")))
    told = refusal(caught.value)
    assert (told.reason, told.violations) == ("SCOPE_DOCUMENT_INVALID", ["spec.ttl"])


async def test_bounds_of_scope_requests(running: Harness, scopes: "ScopeServiceAsyncStub") -> None:
    for call, fields in (
        (scopes.CreateScope(scope_service_pb2.CreateScopeRequest()), ["document"]),
        (scopes.GetScope(scope_service_pb2.GetScopeRequest(name="A", version=-1)), ["name", "version"]),
        (scopes.ListScopes(scope_service_pb2.ListScopesRequest(page_size=-5)), ["page_size"]),
        (scopes.UpdateScope(scope_service_pb2.UpdateScopeRequest()), ["document", "etag"]),
        (scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(etag="\n")), ["etag", "name"]),
        (scopes.ExplainAccess(scope_service_pb2.ExplainAccessRequest()), ["agent.uri", "scope"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert sorted(refusal(caught.value).violations) == fields
    assert running.scopes.calls == []


async def test_explain_access(running: Harness, scopes: "ScopeServiceAsyncStub") -> None:
    claims, parameters = Struct(), Struct()
    claims.update({"groups": ["a", "b"]})
    parameters.update({"year": 2025})
    reply = await scopes.ExplainAccess(
        scope_service_pb2.ExplainAccessRequest(
            agent=scope_service_pb2.SupposedAgent(uri=AGENT, claims=claims),
            scope="orders",
            parameters=parameters,
            ttl=Duration(seconds=60),
            task_labels={"team": "data"},
            task_purpose="why not",
        )
    )
    assert running.scopes.questions == [
        Question(
            agent_uri=AGENT,
            claims={"groups": ["a", "b"]},
            scope="orders",
            parameters={"year": 2025},
            ttl=timedelta(seconds=60),
            task_labels={"team": "data"},
            task_purpose="why not",
        )
    ]
    assert MessageToDict(reply) == {
        "reason": "SCOPE_DENIED",
        "decidingRule": "spec.when",
        "steps": [
            {"rule": "locks", "passed": True, "detail": "none"},
            {"rule": "spec.when", "detail": "is false"},
        ],
    }


@pytest.mark.parametrize(
    ("target", "kind", "value"),
    [
        (lock_pb2.LockTarget(agent=AGENT), LockKind.AGENT, AGENT),
        (lock_pb2.LockTarget(agent_pattern="spiffe://d/**"), LockKind.AGENT_PATTERN, "spiffe://d/**"),
        (lock_pb2.LockTarget(task_id=UUID), LockKind.TASK, UUID),
        (lock_pb2.LockTarget(scope="orders"), LockKind.SCOPE, "orders"),
    ],
)
async def test_create_list_and_delete_a_lock(
    running: Harness, locks: "LockServiceAsyncStub", target: lock_pb2.LockTarget, kind: LockKind, value: str
) -> None:
    reply = await locks.CreateLock(
        lock_service_pb2.CreateLockRequest(target=target, reason="it went mad", ttl=Duration(seconds=3600))
    )
    (lock,) = running.locks.locks.values()
    assert (lock.kind, lock.target, lock.reason) == (kind, value, "it went mad")
    assert (reply.ended_tasks, reply.revoked_issuances) == (2, 5)
    assert (reply.confirmed_issuances, reply.pending_issuances) == (4, 1)
    assert reply.lock.target == target
    assert reply.lock.creator == ADMIN
    assert reply.lock.create_time.ToDatetime(UTC) == NOW
    assert reply.lock.expire_time.ToDatetime(UTC) == NOW + timedelta(hours=1)
    listed = await locks.ListLocks(lock_service_pb2.ListLocksRequest(page_size=3))
    assert list(listed.locks) == [reply.lock]
    assert running.locks.pages == [Page(3)]
    await locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id=reply.lock.id))
    assert running.locks.locks == {}


async def test_lock_without_end(locks: "LockServiceAsyncStub") -> None:
    reply = await locks.CreateLock(
        lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(scope="orders"), reason="x")
    )
    assert not reply.lock.HasField("expire_time")


async def test_bounds_of_lock_requests(running: Harness, locks: "LockServiceAsyncStub") -> None:
    good = lock_pb2.LockTarget(scope="orders")
    for request, fields in (
        (lock_service_pb2.CreateLockRequest(reason="x"), ["target"]),
        (lock_service_pb2.CreateLockRequest(target=good), ["reason"]),
        (lock_service_pb2.CreateLockRequest(target=good, reason="x" * 501), ["reason"]),
        (lock_service_pb2.CreateLockRequest(target=good, reason="x", ttl=Duration()), ["ttl"]),
        (lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(agent="a"), reason="x"), ["target.agent"]),
        (
            lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(agent_pattern="**\n"), reason="x"),
            ["target.agent_pattern"],
        ),
        (lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(task_id="1"), reason="x"), ["target.task_id"]),
        (lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(scope=""), reason="x"), ["target.scope"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await locks.CreateLock(request)
        assert refusal(caught.value).violations == fields
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id="1"))
    assert refusal(caught.value).violations == ["id"]
    assert running.locks.calls == []


def event(**changes: object) -> AuditEvent:
    fields = {"id": UUID, "time": NOW, "type": "credential.issued", "outcome": Outcome.SUCCESS, "actor": AGENT}
    return AuditEvent(**{**fields, **changes})  # type: ignore[arg-type]  # fields of the record


async def test_audit(
    running: Harness, credentials: "CredentialServiceAsyncStub", audit: "AuditServiceAsyncStub"
) -> None:
    issued = await credentials.IssueCredential(
        credential_service_pb2.IssueCredentialRequest(new_task=task_pb2.TaskSpec(purpose="x"), scope="orders")
    )
    identifier = issued.credential.issuance_id
    running.query.recorded = [
        event(
            method="credbroker.v1.CredentialService/IssueCredential",
            reason="R",
            detail="d",
            agent=AGENT,
            task_id=UUID,
            issuance_id=identifier,
            scope="orders",
            scope_version=3,
            peer="127.0.0.1:1",
            attributes={"labels": {"a": "b"}, "count": 2, "none": None, "list": [1, "x"]},
        ),
        event(actor="broker", outcome=Outcome.FAILURE),
    ]
    listed = await audit.ListIssuances(audit_service_pb2.ListIssuancesRequest(page_size=9, filter="state = ACTIVE"))
    assert [issuance.id for issuance in listed.issuances] == [identifier]
    one = await audit.GetIssuance(audit_service_pb2.GetIssuanceRequest(id=identifier))
    assert one.issuance == listed.issuances[0]
    assert MessageToDict(one.events[0]) == {
        "id": UUID,
        "time": "2026-01-01T00:00:00Z",
        "type": "credential.issued",
        "outcome": "AUDIT_OUTCOME_SUCCESS",
        "actor": AGENT,
        "method": "credbroker.v1.CredentialService/IssueCredential",
        "reason": "R",
        "detail": "d",
        "agent": AGENT,
        "taskId": UUID,
        "issuanceId": identifier,
        "scope": "orders",
        "scopeVersion": "3",
        "peer": "127.0.0.1:1",
        "attributes": {"labels": {"a": "b"}, "count": 2.0, "none": None, "list": [1.0, "x"]},
    }
    events = await audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest(page_size=1, page_token="t"))
    assert list(events.events) == [one.events[0]]
    assert events.next_page_token == "next"
    assert running.query.pages == [Page(9, "", "state = ACTIVE"), Page(1, "t")]


async def test_bounds_of_audit_requests(running: Harness, audit: "AuditServiceAsyncStub") -> None:
    for call, fields in (
        (audit.ListIssuances(audit_service_pb2.ListIssuancesRequest(page_size=-1)), ["page_size"]),
        (audit.GetIssuance(audit_service_pb2.GetIssuanceRequest()), ["id"]),
        (audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest(filter="\0")), ["filter"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal(caught.value).violations == fields
    assert running.query.calls == []
