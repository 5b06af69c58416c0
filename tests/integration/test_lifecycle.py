"""The life of tasks and credentials: renewed, given back, overdue, limited, locked, re-scoped."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import grpc
import hvac.exceptions
import psycopg
import pytest
from credbroker.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    issuance_pb2,
    lock_pb2,
    lock_service_pb2,
    scope_service_pb2,
    task_pb2,
    task_service_pb2,
)

from broker.dev.postgres import Postgres
from broker.document import CredentialMapping, ScopeDocument, parse_document
from tests.fixtures.openbao import read_secret
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, SECRET, SECRET_SCOPE, Caller, World
from tests.integration.refusing import Refused, refused


def _readable(world: World, token: str) -> bool:
    try:
        return read_secret(world.vault(token), "reports/api") == SECRET
    except hvac.exceptions.Forbidden:
        return False


async def _renew(caller: Caller, issuance_id: str, ttl: timedelta | None = None) -> issuance_pb2.Issuance:
    request = credential_service_pb2.RenewCredentialRequest(issuance_id=issuance_id)
    if ttl is not None:
        request.ttl.FromTimedelta(ttl)
    reply: credential_service_pb2.RenewCredentialResponse = await caller.credentials.RenewCredential(request)
    return reply.issuance


async def _revoke(caller: Caller, issuance_id: str) -> issuance_pb2.Issuance:
    request = credential_service_pb2.RevokeCredentialRequest(issuance_id=issuance_id)
    reply: credential_service_pb2.RevokeCredentialResponse = await caller.credentials.RevokeCredential(request)
    return reply.issuance


async def _task(caller: Caller, task_id: str) -> task_pb2.Task:
    reply: task_service_pb2.GetTaskResponse = await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(id=task_id))
    return reply.task


@pytest.mark.parametrize(("scope", "parameters"), [("reports-service", {}), ("reports-db", {"role": "readonly"})])
async def test_a_credential_is_renewed_up_to_its_maximum(world: World, scope: str, parameters: dict[str, str]) -> None:
    agent = world.caller()
    issued = await agent.issue(scope, parameters=parameters, ttl=timedelta(minutes=1))
    assert issued.credential.renewable

    renewed = await _renew(agent, issued.credential.issuance_id, timedelta(minutes=3))

    before, after = issued.credential.expire_time.ToDatetime(), renewed.expire_time.ToDatetime()
    assert timedelta(seconds=110) < after - before < timedelta(seconds=130)
    furthest = await _renew(agent, issued.credential.issuance_id, timedelta(minutes=10))
    assert furthest.expire_time.ToDatetime() <= issued.credential.max_expire_time.ToDatetime()
    beyond = await refused(_renew(agent, issued.credential.issuance_id, timedelta(minutes=20)))
    assert beyond.reason == "TTL_EXCEEDED"
    _, events = await world.record_of(issued.credential.issuance_id)
    assert [event.type for event in events].count("credential.renewed") == 2


async def test_a_batch_token_is_neither_renewed_nor_revoked_alone(world: World) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-secret")

    assert not issued.credential.renewable
    assert (await refused(_renew(agent, issued.credential.issuance_id))).reason == "NOT_RENEWABLE"
    assert (await refused(_revoke(agent, issued.credential.issuance_id))).reason == "NOT_REVOCABLE"
    assert _readable(world, issued.credential.vault_token.token)


async def test_renewal_is_decided_anew(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    issued = await agent.issue("reports-service")
    scope = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-service"))).scope
    await admin.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(name=scope.name, etag=scope.etag))

    answer = await refused(_renew(agent, issued.credential.issuance_id))

    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_DENIED")


async def test_a_credential_is_given_back_before_its_task_ends(world: World) -> None:
    agent = world.caller()
    given = await agent.issue("reports-service")
    kept = await agent.issue("reports-service", task_id=given.task.id)

    record = await _revoke(agent, given.credential.issuance_id)

    assert (record.state, record.revocation) == (
        issuance_pb2.ISSUANCE_STATE_REVOKED,
        task_pb2.REVOCATION_STATE_CONFIRMED,
    )
    assert not _readable(world, given.credential.vault_token.token)
    assert _readable(world, kept.credential.vault_token.token)
    again = await _revoke(agent, given.credential.issuance_id)
    assert again.end_time == record.end_time
    assert (await refused(_renew(agent, given.credential.issuance_id))).reason == "ISSUANCE_ENDED"
    assert (await _task(agent, given.task.id)).state == task_pb2.TASK_STATE_ACTIVE


async def test_nothing_is_renewed_for_a_task_that_ended(world: World) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-service")
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))

    assert (await refused(_renew(agent, issued.credential.issuance_id))).reason in ("ISSUANCE_ENDED", "TASK_ENDED")


@pytest.mark.parametrize("overdue", ["deadline", "heartbeat"])
async def test_an_overdue_task_loses_everything(world: World, overdue: str) -> None:
    agent = world.caller()
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    if overdue == "heartbeat":
        spec.heartbeat_interval.FromTimedelta(timedelta(seconds=30))
    issued = await agent.issue("reports-secret", spec=spec)
    await agent.issue("reports-db", task_id=issued.task.id, parameters={"role": "readonly"})
    if overdue == "heartbeat":
        world.clock.offset = timedelta(seconds=20)
        await agent.tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=issued.task.id))
        world.clock.offset = timedelta(seconds=40)
        assert (await _task(agent, issued.task.id)).state == task_pb2.TASK_STATE_ACTIVE
    world.clock.offset = timedelta(seconds=51) if overdue == "heartbeat" else timedelta(minutes=61)

    async def over() -> task_pb2.Task | None:
        task = await _task(world.caller(), issued.task.id)
        return task if task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED else None

    task = await until(over)

    assert task is not None
    ended = task_pb2.TASK_STATE_HEARTBEAT_MISSED if overdue == "heartbeat" else task_pb2.TASK_STATE_DEADLINE_EXCEEDED
    assert task.state == ended
    assert not _readable(world, issued.credential.vault_token.token)
    kind = "task.heartbeat_missed" if overdue == "heartbeat" else "task.deadline_exceeded"
    assert await world.events(f'type = "{kind}" AND task_id = "{issued.task.id}"')
    late = await refused(world.caller().tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=issued.task.id)))
    assert late.reason == "TASK_ENDED"


async def test_what_expires_is_recorded_as_expired(world: World, postgres: Postgres) -> None:
    agent = world.caller()
    batch = await agent.issue("reports-secret", ttl=timedelta(minutes=2))
    lease = await agent.issue(
        "reports-db", task_id=batch.task.id, parameters={"role": "readonly"}, ttl=timedelta(minutes=2)
    )
    world.clock.offset = timedelta(minutes=3)

    async def expired() -> bool:
        return len(await world.issuances("state = EXPIRED")) == 2

    await until(expired)

    confirmed_by = {}
    for issued in (batch, lease):
        _, events = await world.record_of(issued.credential.issuance_id)
        confirmed_by[issued.credential.issuance_id] = [
            dict(event.attributes)["confirmed_by"] for event in events if event.type == "credential.expired"
        ]
    assert confirmed_by == {batch.credential.issuance_id: ["time"], lease.credential.issuance_id: ["vault"]}
    with psycopg.connect(postgres.dsn()) as connection:
        name = str(lease.credential.leased.data["username"])
        assert not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchall()


@pytest.mark.parametrize(
    ("limit", "value"), [("livePerTask", 2), ("livePerAgent", 2), ("livePerScope", 2), ("perAgentPerMinute", 2)]
)
async def test_limits_are_exact_under_concurrency(world: World, limit: str, value: int) -> None:
    document = SECRET_SCOPE.replace("reports-secret", "limited") + f"  limits: {{{limit}: {value}}}\n"
    await world.apply(document)
    agent = world.caller()
    task = (await agent.issue("reports-secret")).task.id

    answers = await asyncio.gather(*(agent.issue("limited", task_id=task) for _ in range(6)), return_exceptions=True)
    late = await refused(agent.issue("limited", task_id=task))

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == 4
    for refusal in (*refusals, late):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
        assert refusal.metadata == {"limit": limit, "value": str(value)}


async def test_a_locked_scope_takes_back_its_credentials_and_leaves_the_task(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    held = await agent.issue("reports-secret")
    other = await agent.issue("reports-service", task_id=held.task.id)

    created = await admin.locks.CreateLock(
        lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(scope="reports-secret"), reason="leaked")
    )

    assert (created.ended_tasks, created.revoked_issuances) == (0, 1)
    await until(lambda: not _readable(world, held.credential.vault_token.token))
    assert _readable(world, other.credential.vault_token.token)
    assert (await refused(agent.issue("reports-secret", task_id=held.task.id))).reason == "LOCKED"
    await admin.locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id=created.lock.id))
    again = await agent.issue("reports-secret", task_id=held.task.id)
    assert _readable(world, again.credential.vault_token.token)


@pytest.mark.parametrize("kind", ["agent_pattern", "task_id"])
async def test_locks_end_the_tasks_they_hold_and_no_others(world: World, kind: str) -> None:
    agent, bystander, admin = world.caller(), world.caller("agents/other"), world.caller("admins/root")
    held = await agent.issue("reports-secret")
    spared = await bystander.issue("reports-secret")
    pattern = f"{world.issuer.url}#agents/reports"
    target = lock_pb2.LockTarget(**{kind: pattern if kind == "agent_pattern" else held.task.id})

    created = await admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))

    assert (created.ended_tasks, created.revoked_issuances) == (1, 1)
    await until(lambda: not _readable(world, held.credential.vault_token.token))
    assert (await _task(agent, held.task.id)).state == task_pb2.TASK_STATE_LOCKED
    assert _readable(world, spared.credential.vault_token.token)
    locks = (await admin.locks.ListLocks(lock_service_pb2.ListLocksRequest())).locks
    assert [lock.id for lock in locks] == [created.lock.id]
    missing = await refused(admin.locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id=str(uuid4()))))
    assert missing.reason == "LOCK_NOT_FOUND"


async def test_a_lock_with_a_bad_pattern_is_refused(world: World) -> None:
    target = lock_pb2.LockTarget(agent_pattern="spiffe://*/agents")

    answer = await refused(
        world.caller("admins/root").locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))
    )

    assert (answer.reason, answer.fields) == ("INVALID_ARGUMENT", ["target.agent_pattern"])


async def test_an_issuance_names_the_version_that_was_enforced(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    first = await agent.issue("reports-secret")
    scope = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-secret"))).scope
    document = scope.document.replace("default: 5m", "default: 4m")

    stale = await refused(
        admin.scopes.UpdateScope(scope_service_pb2.UpdateScopeRequest(document=document, etag="stale"))
    )
    checked = await admin.scopes.UpdateScope(
        scope_service_pb2.UpdateScopeRequest(document=document, etag=scope.etag, validate_only=True)
    )
    updated = await admin.scopes.UpdateScope(scope_service_pb2.UpdateScopeRequest(document=document, etag=scope.etag))
    same = await admin.scopes.UpdateScope(
        scope_service_pb2.UpdateScopeRequest(document=document, etag=updated.scope.etag)
    )
    second = await agent.issue("reports-secret", task_id=first.task.id)

    assert stale.reason == "ETAG_MISMATCH"
    assert (checked.scope.version, updated.scope.version, same.scope.version) == (2, 2, 2)
    versions = [(await world.record_of(issued.credential.issuance_id))[0].scope_version for issued in (first, second)]
    assert versions == [1, 2]
    old = await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-secret", version=1))
    assert old.scope.document == scope.document


async def test_scopes_are_created_once_checked_and_deleted(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    document = SECRET_SCOPE.replace("ISSUER", world.issuer.url)
    create = scope_service_pb2.CreateScopeRequest

    taken = await refused(admin.scopes.CreateScope(create(document=document)))
    broken = await refused(admin.scopes.CreateScope(create(document=document.replace("default: 5m", "default: 50m"))))
    tried = await admin.scopes.CreateScope(
        create(document=document.replace("reports-secret", "tried"), validate_only=True)
    )
    missing = await refused(admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="tried")))
    unknown = await refused(
        admin.scopes.UpdateScope(
            scope_service_pb2.UpdateScopeRequest(document=document.replace("reports-secret", "tried"), etag="x")
        )
    )

    assert taken.reason == "SCOPE_EXISTS"
    assert (broken.reason, broken.fields) == ("SCOPE_DOCUMENT_INVALID", ["spec.ttl"])
    assert tried.scope.version == 1
    assert missing.reason == unknown.reason == "SCOPE_NOT_FOUND"
    scope = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-secret"))).scope
    delete = scope_service_pb2.DeleteScopeRequest
    assert (await refused(admin.scopes.DeleteScope(delete(name=scope.name, etag="stale")))).reason == "ETAG_MISMATCH"
    await admin.scopes.DeleteScope(delete(name=scope.name, etag=scope.etag))
    gone = await refused(admin.scopes.DeleteScope(delete(name=scope.name, etag=scope.etag)))
    assert gone.reason == "SCOPE_NOT_FOUND"
    assert (await refused(agent.issue("reports-secret"))).reason == "SCOPE_DENIED"
    listed = await admin.scopes.ListScopes(scope_service_pb2.ListScopesRequest())
    assert [scope.name for scope in listed.scopes] == ["payments-admin", "reports-db", "reports-service"]
    again = await admin.scopes.CreateScope(create(document=document))
    assert again.scope.version == 2


async def test_documents_of_a_list_are_not_read_in_the_way_of_agents(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set[threading.Thread]()

    def parse(text: str, mappings: Mapping[str, type[CredentialMapping]]) -> ScopeDocument:
        readers.add(threading.current_thread())
        return parse_document(text, mappings)

    monkeypatch.setattr("broker.scopes.parse_document", parse)
    listed = await world.caller("admins/root").scopes.ListScopes(scope_service_pb2.ListScopesRequest())

    assert len(listed.scopes) == len(SCOPES)
    assert readers
    assert threading.current_thread() not in readers


async def test_access_is_explained_with_the_rule_that_decides(world: World) -> None:
    admin = world.caller("admins/root")

    async def explain(uri: str, scope: str, **more: object) -> scope_service_pb2.ExplainAccessResponse:
        request = scope_service_pb2.ExplainAccessRequest(
            agent=scope_service_pb2.SupposedAgent(uri=uri),
            scope=scope,
            **more,  # type: ignore[arg-type]
        )
        reply: scope_service_pb2.ExplainAccessResponse = await admin.scopes.ExplainAccess(request)
        return reply

    agent = f"{world.issuer.url}#agents/reports"
    granted = await explain(agent, "reports-secret")
    svid = await explain("spiffe://example.test/agents/reports", "reports-secret")
    stranger = await explain(f"{world.issuer.url}#others/x", "reports-secret")
    missing = await explain(agent, "no-such-scope")
    nobody = await refused(explain("reports", "reports-secret"))

    assert (granted.allowed, granted.deciding_rule, granted.scope_version) == (True, "spec.who[0]", 1)
    assert (svid.allowed, svid.deciding_rule) == (True, "spec.who[1]")
    assert (stranger.allowed, stranger.reason) == (False, "SCOPE_DENIED")
    assert not missing.allowed
    assert nobody.fields == ["agent.uri"]
    assert not await world.issuances()


async def test_a_workload_with_a_certificate_is_an_agent_too(world: World) -> None:
    workload = world.workload("spiffe://example.test/agents/reports")

    issued = await workload.issue("reports-secret")

    assert issued.task.agent == "spiffe://example.test/agents/reports"
    assert _readable(world, issued.credential.vault_token.token)
    stranger = await refused(world.workload("spiffe://example.test/others/x").issue("reports-secret"))
    assert stranger.reason == "SCOPE_DENIED"


async def test_starting_a_task_twice_with_one_request_id_gives_one_task(world: World) -> None:
    agent, request_id = world.caller(), str(uuid4())
    request = task_service_pb2.StartTaskRequest(request_id=request_id, spec=task_pb2.TaskSpec(purpose="a test"))

    answers = await asyncio.gather(*(agent.tasks.StartTask(request) for _ in range(5)))

    assert len({answer.task.id for answer in answers}) == 1
    issued = await agent.issue("reports-secret", request_id=request_id)
    assert issued.task.id == answers[0].task.id
    ended = await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))
    again = await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))
    assert (again.task.state, again.task.end_time) == (ended.task.state, ended.task.end_time)


async def test_auditors_read_and_their_questions_are_recorded(world: World) -> None:
    issued = await world.caller().issue("reports-secret")
    auditor = world.caller("auditors/one")

    listed = await auditor.audit.ListIssuances(audit_service_pb2.ListIssuancesRequest(filter="state = ACTIVE"))
    await auditor.audit.GetIssuance(audit_service_pb2.GetIssuanceRequest(id=issued.credential.issuance_id))
    missing = await refused(auditor.audit.GetIssuance(audit_service_pb2.GetIssuanceRequest(id=str(uuid4()))))
    tasks = await auditor.tasks.ListTasks(task_service_pb2.ListTasksRequest())

    assert [issuance.id for issuance in listed.issuances] == [issued.credential.issuance_id]
    assert missing.reason == "ISSUANCE_NOT_FOUND"
    assert [task.id for task in tasks.tasks] == [issued.task.id]
    asked = [event.type for event in await world.events(f'actor = "{world.issuer.url}#auditors/one"')]
    assert {"audit.issuances_listed", "audit.issuance_read", "request.refused"} <= set(asked)
    record, events = await world.record_of(issued.credential.issuance_id)
    assert [event.type for event in events] == ["task.started", "credential.issued"]
    assert record.fingerprint
