"""What is refused leaves one event with the full reason, and nothing in Vault."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import grpc
import pytest
from credbroker.v1 import credential_service_pb2, lock_pb2, lock_service_pb2, task_pb2, task_service_pb2

from broker.secret import Secret
from tests.fixtures.world import ENGINE, Caller, World, _oidc
from tests.integration.refusing import Refused, refused

Ask = Callable[[World], Awaitable[object]]


def _forged(world: World) -> Caller:
    head, body, signature = world.issuer.token("agents/reports").reveal().split(".")
    return world.caller(token=f"{head}.{body}.{'A' * len(signature)}")


def _expired(world: World) -> Caller:
    return world.caller(token=world.issuer.token("agents/reports", lifetime=timedelta(minutes=-5)).reveal())


def _foreign(world: World) -> Caller:
    return world.caller(token=world.issuer.token("agents/reports", claims={"iss": "https://other.example"}).reveal())


def _oversized(world: World) -> Caller:
    return world.caller(token=world.issuer.token("agents/reports", claims={"pad": "x" * 14_000}).reveal())


EVIDENCE: dict[str, tuple[Callable[[World], Caller], str]] = {
    "malformed": (lambda world: world.caller(token="not-a-token"), "EVIDENCE_INVALID"),
    "forged": (_forged, "EVIDENCE_INVALID"),
    "expired": (_expired, "EVIDENCE_EXPIRED"),
    "foreign": (_foreign, "EVIDENCE_INVALID"),
    "oversized": (_oversized, "EVIDENCE_INVALID"),
    "for another audience": (
        lambda world: world.caller(token=world.issuer.token("agents/reports", audience="others").reveal()),
        "EVIDENCE_INVALID",
    ),
}


@pytest.mark.parametrize("name", EVIDENCE)
async def test_bad_evidence(world: World, name: str) -> None:
    make, reason = EVIDENCE[name]
    before = len(world.proxy.requests)

    answer = await refused(make(world).issue("reports-secret"))

    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    await _one_event(world, answer, actor="")
    assert _minting(world, before) == 0


REQUESTS: dict[str, tuple[Ask, grpc.StatusCode, str]] = {
    "unknown scope": (
        lambda world: world.caller().issue("no-such-scope"),
        grpc.StatusCode.PERMISSION_DENIED,
        "SCOPE_DENIED",
    ),
    "a scope for others": (
        lambda world: world.caller().issue("payments-admin"),
        grpc.StatusCode.PERMISSION_DENIED,
        "SCOPE_DENIED",
    ),
    "a false condition": (
        lambda world: world.caller().issue(
            "reports-db", parameters={"role": "readonly"}, spec=task_pb2.TaskSpec(purpose="a test")
        ),
        grpc.StatusCode.PERMISSION_DENIED,
        "SCOPE_DENIED",
    ),
    "parameters outside the schema": (
        lambda world: world.caller().issue("reports-db", parameters={"role": "superuser"}),
        grpc.StatusCode.INVALID_ARGUMENT,
        "PARAMETERS_INVALID",
    ),
    "a TTL beyond the maximum": (
        lambda world: world.caller().issue("reports-secret", ttl=timedelta(minutes=16)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "TTL_EXCEEDED",
    ),
    "a task that does not exist": (
        lambda world: world.caller().issue("reports-secret", task_id=str(uuid4())),
        grpc.StatusCode.NOT_FOUND,
        "TASK_NOT_FOUND",
    ),
    "an admin's call": (
        lambda world: world.caller().locks.ListLocks(lock_service_pb2.ListLocksRequest()),
        grpc.StatusCode.PERMISSION_DENIED,
        "ROLE_REQUIRED",
    ),
    "a task with a scope it may not have": (
        lambda world: world.caller().tasks.StartTask(
            task_service_pb2.StartTaskRequest(
                spec=task_pb2.TaskSpec(purpose="a test", declared_scopes=["reports-secret", "payments-admin"])
            )
        ),
        grpc.StatusCode.PERMISSION_DENIED,
        "SCOPE_DENIED",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_bad_requests(world: World, name: str) -> None:
    ask, code, reason = REQUESTS[name]
    before = len(world.proxy.requests)

    answer = await refused(ask(world))

    assert (answer.code, answer.reason) == (code, reason)
    await _one_event(world, answer, actor=f"{world.issuer.url}#agents/reports")
    assert _minting(world, before) == 0
    assert not await world.issuances()


async def test_a_refusal_does_not_tell_whether_the_scope_exists(world: World) -> None:
    missing = await refused(world.caller().issue("no-such-scope"))
    forbidden = await refused(world.caller().issue("payments-admin"))
    unmet = await refused(
        world.caller().issue("reports-db", parameters={"role": "readonly"}, spec=task_pb2.TaskSpec(purpose="a test"))
    )

    told = [
        (answer.code, answer.reason, answer.text, answer.metadata, answer.fields)
        for answer in (missing, forbidden, unmet)
    ]
    assert told[0] == told[1] == told[2]
    details = {event.detail for event in await world.events('type = "request.refused"')}
    assert len(details) == 3


async def test_another_agents_task_is_answered_like_none(world: World) -> None:
    theirs = (await world.caller("agents/other").issue("reports-secret")).task.id
    agent, nothing = world.caller(), str(uuid4())

    for ask in (
        lambda task: agent.issue("reports-secret", task_id=task),
        lambda task: agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=task)),
        lambda task: agent.tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=task)),
        lambda task: agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task)),
    ):
        foreign, missing = await refused(ask(theirs)), await refused(ask(nothing))
        assert (foreign.code, foreign.reason, foreign.text) == (missing.code, missing.reason, missing.text)
        assert foreign.reason == "TASK_NOT_FOUND"
    listed = await agent.tasks.ListTasks(task_service_pb2.ListTasksRequest())
    assert not listed.tasks


async def test_another_agents_credential_is_answered_like_none(world: World) -> None:
    theirs = await world.caller("agents/other").issue("reports-service")
    agent, nothing = world.caller(), str(uuid4())

    for request, call in (
        (credential_service_pb2.RenewCredentialRequest, agent.credentials.RenewCredential),
        (credential_service_pb2.RevokeCredentialRequest, agent.credentials.RevokeCredential),
    ):
        foreign = await refused(call(request(issuance_id=theirs.credential.issuance_id)))
        missing = await refused(call(request(issuance_id=nothing)))
        assert (foreign.code, foreign.reason, foreign.text) == (missing.code, missing.reason, missing.text)
        assert foreign.reason == "ISSUANCE_NOT_FOUND"


async def test_nothing_is_issued_for_a_task_that_ended(world: World) -> None:
    agent = world.caller()
    task = (await agent.issue("reports-secret")).task
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task.id))

    answer = await refused(agent.issue("reports-secret", task_id=task.id))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TASK_ENDED")


async def test_a_task_gets_only_the_scopes_it_declared(world: World) -> None:
    agent = world.caller()
    spec = task_pb2.TaskSpec(purpose="a test", declared_scopes=["reports-secret"])
    task = (await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))).task

    answer = await refused(agent.issue("reports-service", task_id=task.id))

    assert answer.reason == "SCOPE_NOT_DECLARED"
    assert (await agent.issue("reports-secret", task_id=task.id)).credential.vault_token.token


async def test_one_time_evidence_counts_once(bare_world: World) -> None:
    world = bare_world
    database = world.settings.database.url.get_secret_value()
    attestors = [_oidc("people", world.issuer, one_time=True)]
    world.settings = world.configure(Secret(database), attestors=attestors, listen=_bearer_only(world))
    await world.start()
    once = world.caller(jti=str(uuid4()))

    answers = await asyncio.gather(
        *(once.tasks.ListTasks(task_service_pb2.ListTasksRequest()) for _ in range(8)), return_exceptions=True
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == 7
    assert {answer.reason for answer in refusals} == {"EVIDENCE_REPLAYED"}
    without = await refused(world.caller(jti=None).tasks.ListTasks(task_service_pb2.ListTasksRequest()))
    assert without.reason == "EVIDENCE_INVALID"


async def test_one_request_id_is_granted_once(world: World) -> None:
    agent, request_id = world.caller(), str(uuid4())

    answers = await asyncio.gather(
        *(agent.issue("reports-secret", request_id=request_id) for _ in range(8)), return_exceptions=True
    )

    granted = [answer for answer in answers if not isinstance(answer, BaseException)]
    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(granted) == 1
    assert {answer.reason for answer in refusals} == {"REQUEST_ID_REUSED"}
    assert {answer.metadata["issuance_id"] for answer in refusals} == {granted[0].credential.issuance_id}
    assert {answer.metadata["task_id"] for answer in refusals} == {granted[0].task.id}
    late = await refused(agent.issue("reports-secret", request_id=request_id, task_id=granted[0].task.id))
    assert late.metadata == refusals[0].metadata
    assert len((await agent.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks) == 1


async def test_a_lock_refuses_and_takes_back(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    issued = await agent.issue("reports-secret")
    target = lock_pb2.LockTarget(agent=issued.task.agent)

    made = await admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="looks hijacked"))

    assert (made.ended_tasks, made.revoked_issuances) == (1, 1)
    answer = await refused(agent.issue("reports-secret"))
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "LOCKED")
    assert "hijacked" not in answer.text
    await admin.locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id=made.lock.id))
    assert (await agent.issue("reports-secret")).credential.vault_token.token


def _bearer_only(world: World) -> dict[str, object]:
    return {
        "bearer": {
            "address": "127.0.0.1:0",
            "tls": {"certificate": "server.pem", "private_key": "server.key"},
        }
    }


def _minting(world: World, before: int) -> int:
    """How many requests to Vault since then could have made something."""
    return sum("token/create" in path or ENGINE in path for _, path in world.proxy.requests[before:])


async def _one_event(world: World, answer: Refused, *, actor: str) -> None:
    events = await world.events('type = "request.refused"')
    assert [(event.reason, event.actor) for event in events] == [(answer.reason, actor)]
    assert events[0].detail
