"""Agents' RPCs: what each hands to its workflow, and what it makes of the answer."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from credbroker.v1 import credential_service_pb2, issuance_pb2, task_pb2, task_service_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from broker.model import Page, TaskSpec
from tests.contract.serve.harness import Harness, refusal
from tests.fakes.identify import AGENT

if TYPE_CHECKING:
    # Only the stubs know the asynchronous ones by name.
    from credbroker.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub
    from credbroker.v1.task_service_pb2_grpc import TaskServiceAsyncStub


NOW = datetime(2026, 1, 1, tzinfo=UTC)
UUID = "0190a6f2-7b1c-7def-8123-456789abcdef"


def spec(**changes: object) -> task_pb2.TaskSpec:
    fields: dict[str, object] = {"purpose": "sum up the orders", **changes}
    return task_pb2.TaskSpec(**fields)  # type: ignore[arg-type]  # fields of the message


def time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)


async def start(tasks: "TaskServiceAsyncStub", **changes: object) -> task_pb2.Task:
    return (await tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec(**changes)))).task


async def test_start_task(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    request = task_service_pb2.StartTaskRequest(
        request_id=UUID.upper(),
        spec=spec(
            labels={"team": "data"},
            timeout=Duration(seconds=600),
            heartbeat_interval=Duration(seconds=30),
            declared_scopes=["orders", "stock"],
        ),
    )
    task = (await tasks.StartTask(request)).task
    assert MessageToDict(task) == {
        "id": task.id,
        "agent": AGENT,
        "purpose": "sum up the orders",
        "labels": {"team": "data"},
        "declaredScopes": ["orders", "stock"],
        "state": "TASK_STATE_ACTIVE",
        "createTime": "2026-01-01T00:00:00Z",
        "deadline": "2026-01-01T00:10:00Z",
        "heartbeatInterval": "30s",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "revocation": "REVOCATION_STATE_NOT_REQUESTED",
    }
    assert running.tasks.tasks[task.id].request_id == UUID
    again = (await tasks.StartTask(request)).task
    assert again.id == task.id


async def test_timeout_defaults_to_the_configurations(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    task = await start(tasks)
    assert time(task.deadline) == NOW + timedelta(hours=1)
    assert not task.HasField("heartbeat_interval")
    assert not task.HasField("last_heartbeat_time")


async def test_call_carries_who_what_and_when(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    await start(tasks)
    (call,) = running.tasks.calls
    assert call.method == "credbroker.v1.TaskService/StartTask"
    assert call.now == NOW
    assert call.uri == AGENT
    assert call.peer.startswith("127.0.0.1:")


async def test_every_wrong_field_of_a_task_is_named(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    request = task_service_pb2.StartTaskRequest(
        request_id="not-a-uuid",
        spec=spec(
            purpose="x\0",
            labels={"": "v"},
            timeout=Duration(seconds=10**11),
            heartbeat_interval=Duration(nanos=5),
            declared_scopes=["orders", "orders", "NOT A NAME"],
        ),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tasks.StartTask(request)
    told = refusal(caught.value)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.reason == "INVALID_ARGUMENT"
    assert sorted(told.violations) == [
        "request_id",
        "spec.declared_scopes",
        "spec.declared_scopes[2]",
        "spec.heartbeat_interval",
        "spec.labels.key",
        "spec.purpose",
        "spec.timeout",
    ]
    assert running.tasks.calls == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"purpose": ""}, "spec.purpose"),
        ({"purpose": "x" * 501}, "spec.purpose"),
        ({"purpose": "\x1b[2J"}, "spec.purpose"),
        ({"timeout": Duration(seconds=24 * 3600 + 1)}, "spec.timeout"),
        ({"timeout": Duration(seconds=-1)}, "spec.timeout"),
        ({"timeout": Duration()}, "spec.timeout"),
        ({"heartbeat_interval": Duration(nanos=999_999_999)}, "spec.heartbeat_interval"),
        ({"labels": {str(index): "" for index in range(33)}}, "spec.labels"),
        ({"declared_scopes": [f"s{index}" for index in range(33)]}, "spec.declared_scopes"),
    ],
)
async def test_bounds_of_a_task(tasks: "TaskServiceAsyncStub", changes: dict[str, object], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await start(tasks, **changes)
    assert refusal(caught.value).violations == [field]


async def test_missing_spec_is_named(tasks: "TaskServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tasks.StartTask(task_service_pb2.StartTaskRequest())
    assert refusal(caught.value).violations == ["spec.purpose"]


async def test_get_heartbeat_and_complete(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    started = await start(tasks, heartbeat_interval=Duration(seconds=30))
    running.tick(10)
    beaten = (await tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=started.id))).task
    assert time(beaten.last_heartbeat_time) == NOW + timedelta(seconds=10)
    completed = (await tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=started.id.upper()))).task
    assert completed.state == task_pb2.TASK_STATE_COMPLETED
    assert completed.revocation == task_pb2.REVOCATION_STATE_CONFIRMED
    assert time(completed.end_time) == time(completed.revocation_confirm_time) == NOW + timedelta(seconds=10)
    assert (await tasks.GetTask(task_service_pb2.GetTaskRequest(id=started.id))).task == completed


async def test_identifiers_that_are_none_are_invalid(tasks: "TaskServiceAsyncStub") -> None:
    for call in (
        tasks.GetTask(task_service_pb2.GetTaskRequest(id="1")),
        tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest()),
        tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id="../../x")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        told = refusal(caught.value)
        assert (told.code, told.violations) == (grpc.StatusCode.INVALID_ARGUMENT, ["id"])


async def test_list_tasks(running: Harness, tasks: "TaskServiceAsyncStub") -> None:
    started = [await start(tasks) for _ in range(3)]
    reply = await tasks.ListTasks(
        task_service_pb2.ListTasksRequest(page_size=2, page_token="abc", filter="state = ACTIVE")
    )
    assert [task.id for task in reply.tasks] == [task.id for task in started[:2]]
    assert reply.next_page_token == "next"
    await tasks.ListTasks(task_service_pb2.ListTasksRequest())
    await tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=2**31 - 1))
    assert running.tasks.pages == [Page(2, "abc", "state = ACTIVE"), Page(50), Page(1000)]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (task_service_pb2.ListTasksRequest(page_size=-1), "page_size"),
        (task_service_pb2.ListTasksRequest(page_token="\0"), "page_token"),
        (task_service_pb2.ListTasksRequest(page_token="x" * 2049), "page_token"),
        (task_service_pb2.ListTasksRequest(filter="state = \n"), "filter"),
        (task_service_pb2.ListTasksRequest(filter="x" * 2049), "filter"),
    ],
)
async def test_bounds_of_a_page(
    tasks: "TaskServiceAsyncStub", request_: task_service_pb2.ListTasksRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tasks.ListTasks(request_)
    assert refusal(caught.value).violations == [field]


def parameters(**values: object) -> Struct:
    struct = Struct()
    struct.update(values)  # type: ignore[arg-type]  # JSON values
    return struct


async def test_issue_for_a_task(
    running: Harness, tasks: "TaskServiceAsyncStub", credentials: "CredentialServiceAsyncStub"
) -> None:
    task = await start(tasks)
    reply = await credentials.IssueCredential(
        credential_service_pb2.IssueCredentialRequest(
            request_id=UUID,
            task_id=task.id,
            scope="orders",
            parameters=parameters(year=2025, region="eu"),
            ttl=Duration(seconds=60),
        )
    )
    (asked,) = running.issuer.requests
    assert (asked.request_id, asked.task, asked.scope) == (UUID, task.id, "orders")
    assert asked.parameters == {"year": 2025, "region": "eu"}
    assert type(asked.parameters["year"]) is int
    assert asked.ttl == timedelta(seconds=60)
    assert reply.task == task
    (issuance,) = running.issuer.issuances.values()
    assert MessageToDict(reply.credential) == {
        "issuanceId": issuance.id,
        "expireTime": "2026-01-01T00:01:00Z",
        "maxExpireTime": "2026-01-01T00:02:00Z",
        "renewable": True,
        "revocability": "REVOCABILITY_WITH_TASK",
        "vaultToken": {
            "token": "hvb.issued",
            "vaultAddress": "https://vault.test:8200",
            "vaultNamespace": "team",
        },
    }


async def test_issue_with_a_new_task(running: Harness, credentials: "CredentialServiceAsyncStub") -> None:
    reply = await credentials.IssueCredential(
        credential_service_pb2.IssueCredentialRequest(new_task=spec(timeout=Duration(seconds=90)), scope="orders")
    )
    (asked,) = running.issuer.requests
    assert asked.task == TaskSpec("sum up the orders", {}, timedelta(seconds=90), None, ())
    assert (asked.request_id, asked.ttl, asked.parameters) == (None, None, {})
    assert reply.task.purpose == "sum up the orders"


async def test_issue_a_leased_secret(running: Harness, credentials: "CredentialServiceAsyncStub") -> None:
    running.issuer.kind = "leased"
    running.issuer.secret = {"username": "v-1", "password": "p", "port": 5432, "id": 2**60}
    reply = await credentials.IssueCredential(
        credential_service_pb2.IssueCredentialRequest(new_task=spec(), scope="orders")
    )
    assert reply.credential.WhichOneof("secret") == "leased"
    assert MessageToDict(reply.credential.leased.data) == {
        "username": "v-1",
        "password": "p",
        "port": 5432.0,
        "id": str(2**60),
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task_id": "x"}, "task_id"),
        ({"task_id": ""}, "task_id"),
        ({"new_task": task_pb2.TaskSpec()}, "new_task.purpose"),
        ({"task_id": UUID, "scope": "../sys"}, "scope"),
        ({"task_id": UUID, "scope": "a\0"}, "scope"),
        ({"task_id": UUID, "ttl": Duration()}, "ttl"),
        ({"task_id": UUID, "ttl": Duration(seconds=-(10**12))}, "ttl"),
        ({"task_id": UUID, "request_id": "1"}, "request_id"),
        ({"task_id": UUID, "parameters": parameters(a="\0")}, "parameters.a"),
        ({}, "task"),
    ],
)
async def test_bounds_of_a_request_for_a_credential(
    running: Harness, credentials: "CredentialServiceAsyncStub", changes: dict[str, object], field: str
) -> None:
    request = credential_service_pb2.IssueCredentialRequest(**{"scope": "orders", **changes})  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await credentials.IssueCredential(request)
    assert refusal(caught.value).violations == [field]
    assert running.issuer.calls == []


async def test_renew_and_revoke(running: Harness, credentials: "CredentialServiceAsyncStub") -> None:
    issued = await credentials.IssueCredential(
        credential_service_pb2.IssueCredentialRequest(new_task=spec(), scope="orders", parameters=parameters(a=1))
    )
    identifier = issued.credential.issuance_id
    running.tick(60)
    renewed = (
        await credentials.RenewCredential(
            credential_service_pb2.RenewCredentialRequest(issuance_id=identifier, ttl=Duration(seconds=120))
        )
    ).issuance
    assert time(renewed.expire_time) == NOW + timedelta(seconds=180)
    assert time(renewed.renew_time) == NOW + timedelta(seconds=60)
    assert renewed.state == issuance_pb2.ISSUANCE_STATE_ACTIVE
    assert renewed.revocation == task_pb2.REVOCATION_STATE_NOT_REQUESTED
    revoked = (
        await credentials.RevokeCredential(credential_service_pb2.RevokeCredentialRequest(issuance_id=identifier))
    ).issuance
    assert MessageToDict(revoked) == {
        "id": identifier,
        "taskId": issued.task.id,
        "agent": AGENT,
        "scope": "orders",
        "scopeVersion": "3",
        "parameters": {"a": 1.0},
        "kind": "vault_token",
        "state": "ISSUANCE_STATE_REVOKING",
        "revocability": "REVOCABILITY_WITH_TASK",
        "createTime": "2026-01-01T00:00:00Z",
        "expireTime": "2026-01-01T00:03:00Z",
        "maxExpireTime": "2026-01-01T00:30:00Z",
        "renewTime": "2026-01-01T00:01:00Z",
        "revokeRequestTime": "2026-01-01T00:01:00Z",
        "endReason": "agent.revoked",
        "revocation": "REVOCATION_STATE_PENDING",
        "fingerprint": "f" * 64,
        "vaultAccessor": "accessor",
        "vaultLeaseId": "lease",
    }


async def test_bounds_of_renewal_and_revocation(credentials: "CredentialServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await credentials.RenewCredential(
            credential_service_pb2.RenewCredentialRequest(issuance_id="x", ttl=Duration(nanos=-1))
        )
    assert sorted(refusal(caught.value).violations) == ["issuance_id", "ttl"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await credentials.RevokeCredential(credential_service_pb2.RevokeCredentialRequest())
    assert refusal(caught.value).violations == ["issuance_id"]
