"""What the measured agents take for a credential, and for its end."""

import time
from collections.abc import Callable
from typing import cast

import pytest
from credbroker.v1 import credential_service_pb2 as credential
from credbroker.v1 import task_pb2
from credbroker.v1 import task_service_pb2 as task_service

from tests.bench.agents import COMPLETE, ISSUE, BrokerCaller, DirectCaller, _load
from tests.bench.samples import Samples
from tests.bench.wire import GrpcConnection, HttpConnection, WrongReply

Change = Callable[[credential.IssueCredentialResponse], None]


class Broker:
    """Answers like the broker, except for one change."""

    def __init__(self, change: Change = lambda _reply: None, end: task_pb2.Task | None = None) -> None:
        self._change = change
        self._end = end
        self._issued = 0

    async def call(self, method: str, _message: bytes) -> bytes:
        if method == COMPLETE:
            state, confirmed = task_pb2.TASK_STATE_COMPLETED, task_pb2.REVOCATION_STATE_CONFIRMED
            task = self._end or task_pb2.Task(id="task", state=state, revocation=confirmed)
            return task_service.CompleteTaskResponse(task=task).SerializeToString()
        assert method == ISSUE
        self._issued += 1
        reply = credential.IssueCredentialResponse(task=task_pb2.Task(id="task"))
        reply.credential.issuance_id = f"issuance-{self._issued}"
        reply.credential.vault_token.token = f"token-{self._issued}"
        reply.credential.expire_time.seconds = int(time.time()) + 60
        self._change(reply)
        return reply.SerializeToString()


async def load(broker: Broker, workload: str = "tasks of ten") -> Samples:
    samples = Samples()
    caller = BrokerCaller(cast("GrpcConnection", broker), "batch", samples)
    await _load([caller], workload, 0.01, samples)
    return samples


@pytest.mark.parametrize("workload", ["steady", "tasks of ten", "tasks of one"])
async def test_every_credential_is_a_sample(workload: str) -> None:
    samples = await load(Broker(), workload)

    ended = {"steady": 0, "tasks of ten": len(samples.waits) / 10, "tasks of one": len(samples.waits)}[workload]
    assert len(samples.waits) > 1
    assert len(samples.ends) == ended


def same_token(reply: credential.IssueCredentialResponse) -> None:
    reply.credential.vault_token.token = "the same again"


def no_secret(reply: credential.IssueCredentialResponse) -> None:
    reply.credential.ClearField("vault_token")


def no_record(reply: credential.IssueCredentialResponse) -> None:
    reply.credential.issuance_id = ""


def expired(reply: credential.IssueCredentialResponse) -> None:
    reply.credential.expire_time.seconds = int(time.time()) - 1


def other_task(reply: credential.IssueCredentialResponse) -> None:
    reply.task.id = reply.credential.issuance_id


def half_a_secret(reply: credential.IssueCredentialResponse) -> None:
    reply.credential.ClearField("vault_token")
    reply.credential.leased.data["username"] = "somebody"


@pytest.mark.parametrize("change", [same_token, no_secret, no_record, expired, other_task, half_a_secret])
async def test_what_is_no_credential_ends_the_measurement(change: Change) -> None:
    with pytest.raises(WrongReply):
        await load(Broker(change))


@pytest.mark.parametrize(
    "end",
    [
        task_pb2.Task(id="task", state=task_pb2.TASK_STATE_ACTIVE),
        task_pb2.Task(id="other", state=task_pb2.TASK_STATE_COMPLETED, revocation=task_pb2.REVOCATION_STATE_CONFIRMED),
        task_pb2.Task(id="task", state=task_pb2.TASK_STATE_COMPLETED, revocation=task_pb2.REVOCATION_STATE_PENDING),
    ],
)
async def test_a_task_that_has_not_ended_ends_the_measurement(end: task_pb2.Task) -> None:
    with pytest.raises(WrongReply):
        await load(Broker(end=end))


class Vault:
    """Answers every request alike."""

    def __init__(self, status: int, content: bytes) -> None:
        self._reply = status, content

    async def post(self, path: str, _body: bytes, _token: str = "") -> tuple[int, bytes]:
        return (204, b"") if path.endswith("revoke-self") and self._reply[0] == 200 else self._reply


GOOD = b'{"auth": {"client_token": "t", "lease_duration": 900, "token_policies": ["agents"]}}'


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, b'{"errors": ["permission denied"]}'),
        (200, GOOD.replace(b'"t"', b'""')),
        (200, GOOD.replace(b"900", b"0")),
        (200, GOOD.replace(b'"agents"', b"")),
        (200, GOOD),  # the same token again and again
    ],
)
async def test_what_is_no_login_ends_the_measurement(status: int, content: bytes) -> None:
    samples = Samples()
    caller = DirectCaller(cast("HttpConnection", Vault(status, content)), "agents", "jwt", "", samples)
    with pytest.raises(WrongReply):
        await _load([caller], "tasks of ten", 0.01, samples)
