"""Several replicas on one PostgreSQL: what holds across them, and what moves when one is gone."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import grpc
import hvac.exceptions
import pytest
from credbroker.v1 import lock_pb2, lock_service_pb2, task_pb2, task_service_pb2

from broker.app import App
from broker.secret import Secret
from tests.fixtures.openbao import read_secret
from tests.fixtures.replicas import Replicas, several
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, SECRET_SCOPE, Caller, World, _oidc
from tests.integration.refusing import Refused, refused

TOGETHER = 100


@pytest.fixture
def database(postgres_url: Secret[str]) -> Secret[str]:
    """Replicas share a PostgreSQL."""
    return postgres_url


@pytest.fixture
async def replicas(bare_world: World) -> AsyncIterator[Replicas]:
    async with several(bare_world) as replicas:
        yield replicas


@pytest.fixture
async def pair(bare_world: World, replicas: Replicas) -> tuple[App, App]:
    """Two replicas, with scopes."""
    await bare_world.start()
    await bare_world.apply(*SCOPES)
    return bare_world.app, await replicas.start()


def at(replicas: Replicas, app: App, subject: str = "agents/reports") -> Caller:
    return replicas.caller(app.addresses["bearer"], subject)


def readable(world: World, token: str) -> bool:
    try:
        read_secret(world.vault(token), "reports/api")
    except hvac.exceptions.Forbidden:
        return False
    return True


async def test_a_lock_of_one_replica_holds_on_the_other_from_its_commit_on(
    bare_world: World, replicas: Replicas, pair: tuple[App, App]
) -> None:
    admin, agent = at(replicas, pair[0], "admins/root"), at(replicas, pair[1])
    task = (await agent.issue("reports-secret")).task.id
    handed_out: list[str] = []
    refusals: list[Refused] = []

    async def keep_asking() -> None:
        while not refusals:
            try:
                reply = await agent.issue("reports-secret", task_id=task)
                handed_out.append(reply.credential.vault_token.token)
            except grpc.aio.AioRpcError as error:
                refusals.append(Refused(error))

    asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
    await until(lambda: len(handed_out) > 50)
    target = lock_pb2.LockTarget(agent=f"{bare_world.issuer.url}#agents/reports")
    await admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))
    after = await refused(agent.issue("reports-secret"))
    await asyncio.gather(*asking)

    assert after.reason == "LOCKED"
    assert {answer.reason for answer in refusals} <= {"LOCKED", "TASK_ENDED"}
    await until(lambda: not any(readable(bare_world, token) for token in handed_out))
    assert await bare_world.issuances("state = ACTIVE") == []


@pytest.mark.parametrize(
    ("limit", "one_task"), [("livePerTask", True), ("livePerAgent", False), ("livePerScope", False)]
)
async def test_limits_are_exact_across_replicas(
    bare_world: World, replicas: Replicas, pair: tuple[App, App], limit: str, one_task: bool
) -> None:
    scope = SECRET_SCOPE.replace("name: reports-secret", "name: limited") + f"  limits: {{{limit}: 5}}\n"
    await bare_world.apply(scope)
    callers = [at(replicas, app) for app in pair]
    started = await callers[0].tasks.StartTask(
        task_service_pb2.StartTaskRequest(spec=task_pb2.TaskSpec(purpose="a test"))
    )
    task_id = started.task.id if limit == "livePerTask" else None

    answers = await asyncio.gather(
        *(callers[number % 2].issue("limited", task_id=task_id) for number in range(TOGETHER)), return_exceptions=True
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == TOGETHER - 5
    assert {(answer.reason, answer.metadata["limit"]) for answer in refusals} == {("LIMIT_REACHED", limit)}
    assert len(await bare_world.issuances("state = ACTIVE")) == 5


async def test_one_request_on_two_replicas_is_granted_once(
    bare_world: World, replicas: Replicas, pair: tuple[App, App]
) -> None:
    callers, request_id = [at(replicas, app) for app in pair], str(uuid4())

    answers = await asyncio.gather(
        *(callers[number % 2].issue("reports-secret", request_id=request_id) for number in range(TOGETHER)),
        return_exceptions=True,
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == TOGETHER - 1
    assert {answer.reason for answer in refusals} == {"REQUEST_ID_REUSED"}
    assert len(await bare_world.issuances("state = ACTIVE")) == 1


async def test_one_token_for_one_use_is_used_once_on_two_replicas(bare_world: World, replicas: Replicas) -> None:
    world, uses = bare_world, 400
    database = Secret(world.settings.database.url.get_secret_value())
    listener = world.settings.listen.model_dump(mode="json")["bearer"]
    attestors = [_oidc("people", world.issuer, one_time=True)]
    world.settings = world.configure(database, attestors=attestors, listen={"bearer": listener})
    apps = [await replicas.start(), await replicas.start()]
    token = world.issuer.token("agents/reports", claims={"jti": str(uuid4())}).reveal()
    callers = [replicas.caller(app.addresses["bearer"], token=token) for app in apps]

    answers = await asyncio.gather(
        *(callers[number % 2].tasks.ListTasks(task_service_pb2.ListTasksRequest()) for number in range(uses)),
        return_exceptions=True,
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == uses - 1
    assert {answer.reason for answer in refusals} == {"EVIDENCE_REPLAYED"}
