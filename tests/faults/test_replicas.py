"""Several replicas on one PostgreSQL: what holds across them, and what moves when one is gone."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from uuid import uuid4

import grpc
import hvac.exceptions
import pytest
from credbroker.v1 import lock_pb2, lock_service_pb2, task_pb2, task_service_pb2

from broker.app import App
from broker.lease import LIFE
from broker.secret import Secret
from tests.fixtures.openbao import read_secret
from tests.fixtures.replicas import Replicas, reconfigure, rows, serving, several
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, SECRET_SCOPE, Caller, World, _oidc
from tests.integration.refusing import Refused, refused

TOGETHER = 100
WORK = ("reap", "sweep")
# Seconds that a busy machine may add.
SLACK = 10.0


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
    reconfigure(bare_world)
    await bare_world.start()
    await bare_world.apply(*SCOPES)
    return bare_world.app, await replicas.start()


def at(replicas: Replicas, app: App, subject: str = "agents/reports") -> Caller:
    return replicas.caller(app.addresses["bearer"], subject)


def crowd(replicas: Replicas, apps: Sequence[App], count: int, token: str | None = None) -> Iterator[Caller]:
    """Return callers for that many calls at once, spread over replicas and connections."""
    connections = [replicas.caller(app.addresses["bearer"], token=token) for app in apps for _ in range(10)]
    return islice(cycle(connections), count)


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


@pytest.mark.parametrize("limit", ["livePerTask", "livePerAgent", "livePerScope"])
async def test_limits_are_exact_across_replicas(
    bare_world: World, replicas: Replicas, pair: tuple[App, App], limit: str
) -> None:
    scope = SECRET_SCOPE.replace("name: reports-secret", "name: limited") + f"  limits: {{{limit}: 5}}\n"
    await bare_world.apply(scope)
    started = await at(replicas, pair[0]).tasks.StartTask(
        task_service_pb2.StartTaskRequest(spec=task_pb2.TaskSpec(purpose="a test"))
    )
    task_id = started.task.id if limit == "livePerTask" else None

    answers = await asyncio.gather(
        *(caller.issue("limited", task_id=task_id) for caller in crowd(replicas, pair, TOGETHER)),
        return_exceptions=True,
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == TOGETHER - 5
    assert {(answer.reason, answer.metadata.get("limit")) for answer in refusals} == {("LIMIT_REACHED", limit)}
    assert len(await bare_world.issuances("state = ACTIVE")) == 5


async def test_one_request_on_two_replicas_is_granted_once(
    bare_world: World, replicas: Replicas, pair: tuple[App, App]
) -> None:
    request_id = str(uuid4())

    answers = await asyncio.gather(
        *(caller.issue("reports-secret", request_id=request_id) for caller in crowd(replicas, pair, TOGETHER)),
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

    answers = await asyncio.gather(
        *(caller.tasks.ListTasks(task_service_pb2.ListTasksRequest()) for caller in crowd(replicas, apps, uses, token)),
        return_exceptions=True,
    )

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refusals) == uses - 1
    assert {answer.reason for answer in refusals} == {"EVIDENCE_REPLAYED"}


def holders(world: World) -> set[tuple[str, str]]:
    """Return who holds which lease."""
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    return set(rows(world, f"SELECT name, holder FROM leases WHERE expires_at > {now}"))


async def all_work_is_of(world: World, name: str) -> None:
    await until(lambda: holders(world) == {(work, name) for work in WORK})


async def test_a_replica_that_ends_finishes_its_requests_and_gives_its_work_back(
    bare_world: World, replicas: Replicas, pair: tuple[App, App]
) -> None:
    world, (first, second) = bare_world, pair
    await all_work_is_of(world, first.name)
    agent = at(replicas, first)
    await agent.issue("reports-secret")
    stuck = world.proxy.fail("auth/token/create", "hang_after")
    asking = asyncio.create_task(agent.issue("reports-service"))
    await asyncio.wait_for(stuck.seen.wait(), 10)

    stopping = asyncio.create_task(first.stop())
    newcomer = at(replicas, first)

    async def turned_away() -> bool:
        try:
            await newcomer.tasks.ListTasks(task_service_pb2.ListTasksRequest())
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    await until(turned_away)
    assert not stopping.done()
    stuck.release.set()
    token = (await asking).credential.vault_token.token
    await stopping

    assert readable(world, token)
    assert first.name not in {holder for _, holder in holders(world)}, "a lease was left to run out"
    await all_work_is_of(world, second.name)


async def a_task_with_a_credential(agent: Caller) -> tuple[str, str]:
    issued = await agent.issue("reports-secret")
    return issued.task.id, issued.credential.vault_token.token


def recorded(world: World, task: str) -> list[str]:
    """Return the types of all events of a task."""
    return [kind for (kind,) in rows(world, f"SELECT type FROM events WHERE task_id = '{task}' ORDER BY id")]


async def taken_over(world: World, task: str, by: str) -> None:
    """Wait until another replica has confirmed a revocation, whose claim lapses as time would have it."""

    def confirmed() -> bool:
        # Whoever asks next gets it: perhaps the one that is stuck.
        rows(world, f"UPDATE revocations SET next_attempt_at = 0 WHERE confirmed_at IS NULL AND claimed_by <> '{by}'")
        return "task.revocation_confirmed" in recorded(world, task)

    await until(confirmed)
    assert rows(world, "SELECT claimed_by FROM revocations") == [(by,)]


async def test_a_claim_that_another_replica_took_over_records_nothing(
    bare_world: World, replicas: Replicas, capfd: pytest.CaptureFixture[str]
) -> None:
    world = bare_world
    reconfigure(world)
    await world.start()
    await world.apply(*SCOPES)
    agent = at(replicas, world.app)
    task, token = await a_task_with_a_credential(agent)
    stuck = world.proxy.fail("auth/token/revoke-accessor", "hang_after")
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task))
    await asyncio.wait_for(stuck.seen.wait(), 10)

    other = await replicas.start()
    await taken_over(world, task, by=other.name)
    before = recorded(world, task)
    stuck.release.set()
    shown: list[str] = []

    def refused_it() -> bool:
        shown.append(capfd.readouterr().out)
        return "another claim has taken over a revocation" in "".join(shown)

    await until(refused_it)

    assert recorded(world, task) == before
    assert before.count("credential.revoked") == 1
    assert not readable(world, token)


@pytest.mark.long
async def test_work_moves_within_seconds_when_its_holder_is_killed(bare_world: World, replicas: Replicas) -> None:
    world = bare_world
    reconfigure(world)
    with serving(world) as victim:
        name = (await victim.tells("started"))["replica"]
        await all_work_is_of(world, name)
        heir = await replicas.start()
        victim.process.kill()
        victim.process.wait()
        assert {holder for _, holder in holders(world)} == {name}

        async with asyncio.timeout(LIFE.total_seconds() + SLACK):
            await all_work_is_of(world, heir.name)


@pytest.mark.long
async def test_a_replica_that_slept_through_its_lease_records_nothing_twice(
    bare_world: World, replicas: Replicas
) -> None:
    world = bare_world
    reconfigure(world)
    await world.start()
    await world.apply(*SCOPES)
    await world.app.stop()
    with serving(world) as sleeper:
        started = await sleeper.tells("started")
        await all_work_is_of(world, started["replica"])
        agent = replicas.caller(started["bearer"])
        task, token = await a_task_with_a_credential(agent)
        stuck = world.proxy.fail("auth/token/revoke-accessor", "hang_after")
        await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task))
        await asyncio.wait_for(stuck.seen.wait(), 10)

        sleeper.process.send_signal(signal.SIGSTOP)
        heir = await replicas.start()
        await all_work_is_of(world, heir.name)
        await taken_over(world, task, by=heir.name)
        before = recorded(world, task)
        stuck.release.set()
        sleeper.process.send_signal(signal.SIGCONT)

        await sleeper.tells("another claim has taken over a revocation")
        for work in WORK:
            await sleeper.tells("another replica took over work", work=work)
        assert recorded(world, task) == before
        assert before.count("credential.revoked") == 1
        assert not readable(world, token)
        assert holders(world) == {(work, heir.name) for work in WORK}

        next_task, next_token = await a_task_with_a_credential(agent)
        assert readable(world, next_token)
        await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=next_task))
        await until(lambda: not readable(world, next_token))
        await heir.stop()
        await all_work_is_of(world, started["replica"])
