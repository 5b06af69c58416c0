"""One issuance, disturbed at every step: nothing is left alive that was not handed out."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import grpc
import psycopg
import pytest
from credbroker.v1 import (
    issuance_pb2,
    lock_pb2,
    lock_service_pb2,
    scope_service_pb2,
    task_pb2,
    task_service_pb2,
)

from broker.dev.postgres import Postgres
from broker.errors import Overloaded
from broker.policy import PolicyChanged, until_settled
from tests.fakes.vault_proxy import Fault, Rule
from tests.faults.holding import start_before
from tests.faults.test_promises import Minted, database_url, dead, failing_inserts, works
from tests.fixtures.store import counting
from tests.fixtures.waiting import until
from tests.fixtures.world import ENGINE, SCOPES, Caller, World
from tests.integration.refusing import Refused, refused

T = TypeVar("T")

ANCHOR, CHILD, LEASE = "auth/token/create/credbroker-", "auth/token/create", f"{ENGINE}/creds/"
READONLY = {"role": "readonly"}

STEPS = {
    "anchor": ("reports-secret", ANCHOR, {}),
    "batch child": ("reports-secret", CHILD, {}),
    "service child": ("reports-service", CHILD, {}),
    "holder": ("reports-db", CHILD, READONLY),
    "lease": ("reports-db", LEASE, READONLY),
}


async def _begin(world: World, scope: str, path: str, parameters: dict[str, str]) -> tuple[Caller, str]:
    """Return an agent with a task that has its anchor, unless the anchor is what the test is about."""
    agent = world.caller()
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    task = (await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))).task.id
    if path != ANCHOR:
        await agent.issue(scope, task_id=task, parameters=parameters)
    return agent, task


async def _complete(agent: Caller, task: str) -> None:
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task))


async def _all_settled(world: World, agent: Caller, task: str) -> None:
    """End the task; everything must be confirmed, and the sweeper has to find what a failure left."""
    await _complete(agent, task)
    world.clock.offset = timedelta(minutes=2)

    async def confirmed() -> bool:
        found = await agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=task))
        return bool(found.task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED)

    await until(confirmed)
    assert not await world.issuances("state = ACTIVE")
    assert not await world.issuances("state = MINTING")
    assert not await world.issuances("state = REVOKING")


@pytest.mark.parametrize(
    "fault",
    ["error_after", "drop_after", "html", "refuse_before", pytest.param("hang_after", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("step", STEPS)
async def test_when_vault_fails_nothing_undelivered_lives(bare_world: World, step: str, fault: Fault) -> None:
    world = await start_before(fault, bare_world)
    scope, path, parameters = STEPS[step]
    agent, task = await _begin(world, scope, path, parameters)
    minted = Minted(world)
    world.proxy.fail(path, fault)

    answer = await refused(agent.issue(scope, task_id=task, parameters=parameters))

    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE")
    failures = await world.events('type = "request.failed"')
    assert [event.reason for event in failures] == ["VAULT_UNAVAILABLE"]
    again = await agent.issue(scope, task_id=task, parameters=parameters)
    assert again.credential.issuance_id
    await _all_settled(world, agent, task)
    for token in minted.tokens:
        await until(dead(world, token))


@pytest.mark.parametrize("fault", ["refuse_before", "error_after"])
async def test_the_anchor_of_a_task_whose_first_credential_fails_is_adopted_and_used(
    world: World, fault: Fault
) -> None:
    agent = world.caller()
    made = Minted(world)
    world.proxy.fail(CHILD + "$", fault)

    answer = await refused(agent.issue("reports-secret"))

    assert answer.reason == "VAULT_UNAVAILABLE"
    (task,) = (await agent.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks
    await agent.issue("reports-secret", task_id=task.id)
    assert len(made.tokens) - len(made.children) == 1
    await _all_settled(world, agent, task.id)
    for token in made.tokens:
        await until(dead(world, token))


@pytest.mark.parametrize("step", ["service child", "holder"])
async def test_what_vault_made_in_doubt_dies_at_once(world: World, step: str) -> None:
    scope, path, parameters = STEPS[step]
    agent, task = await _begin(world, scope, path, parameters)
    minted = Minted(world)
    world.proxy.fail(path, "error_after")

    await refused(agent.issue(scope, task_id=task, parameters=parameters))

    assert minted.children
    for token in minted.children:
        await until(dead(world, token))


@pytest.mark.parametrize(("role", "reason"), [("broken", "VAULT_UNAVAILABLE"), ("missing", "MINT_FAILED")])
async def test_what_vault_refuses_to_mint_leaves_no_holder(world: World, role: str, reason: str) -> None:
    agent, task = await _begin(world, "reports-db", LEASE, READONLY)
    minted = Minted(world)

    answer = await refused(agent.issue("reports-db", task_id=task, parameters={"role": role}))

    assert answer.reason == reason
    assert "division" not in answer.text
    assert "unknown role" not in answer.text
    for token in minted.children:
        await until(dead(world, token))
    failed = await world.events('type = "credential.mint_failed"')
    assert len(failed) == 1
    record, events = await world.record_of(failed[0].issuance_id)
    assert record.end_reason == "mint_failed"
    assert "credential.issued" not in [event.type for event in events]


async def test_a_failed_mint_does_not_use_up_the_request_id(world: World) -> None:
    agent, task = await _begin(world, "reports-db", LEASE, READONLY)
    request_id = str(uuid4())
    world.proxy.fail(LEASE, "error_after")

    await refused(agent.issue("reports-db", task_id=task, parameters=READONLY, request_id=request_id))

    assert await agent.issue("reports-db", task_id=task, parameters=READONLY, request_id=request_id)


async def test_an_anchor_revoked_behind_the_brokers_back_is_replaced(world: World) -> None:
    minted = Minted(world)
    agent = world.caller()
    first = await agent.issue("reports-secret")
    world.admin.adapter.post("/v1/auth/token/revoke", json={"token": minted.tokens[0]})

    second = await agent.issue("reports-secret", task_id=first.task.id)

    assert not works(world, first.credential.vault_token.token)
    assert works(world, second.credential.vault_token.token)

    async def settled() -> bool:
        record, _ = await world.record_of(first.credential.issuance_id)
        return bool(record.state == issuance_pb2.ISSUANCE_STATE_REVOKED)

    await until(settled)


@contextlib.asynccontextmanager
async def paused(world: World, path: str, asking: Awaitable[T]) -> AsyncIterator["asyncio.Future[T]"]:
    """Let a request run until Vault has acted on a path, do something, and let it go on."""
    rule: Rule = world.proxy.fail(path, "hang_after")
    task = asyncio.ensure_future(asking)
    await asyncio.wait_for(rule.seen.wait(), 10)
    yield task
    rule.release.set()


@pytest.mark.parametrize("step", STEPS)
async def test_a_task_that_ends_meanwhile_gets_nothing(world: World, step: str) -> None:
    scope, path, parameters = STEPS[step]
    agent, task = await _begin(world, scope, path, parameters)
    minted = Minted(world)

    async with paused(world, path, agent.issue(scope, task_id=task, parameters=parameters)) as asking:
        await _complete(agent, task)

    answer = await refused(asking)
    assert answer.reason in ("TASK_ENDED", "MINT_FAILED", "VAULT_UNAVAILABLE")
    assert minted.tokens
    for token in minted.tokens:
        await until(dead(world, token))
    await _all_settled(world, agent, task)


async def test_the_end_of_a_task_is_confirmed_though_its_anchor_is_refused_only_then(world: World) -> None:
    agent, task = await _begin(world, "reports-secret", ANCHOR, {})
    rule = world.proxy.fail(ANCHOR, "refuse_late")
    asking = asyncio.ensure_future(agent.issue("reports-secret", task_id=task))
    await asyncio.wait_for(rule.seen.wait(), 10)
    await _complete(agent, task)

    rule.release.set()

    assert (await refused(asking)).reason == "VAULT_UNAVAILABLE"
    await _all_settled(world, agent, task)
    confirmed = await world.events('type = "task.revocation_confirmed"')
    assert [event.task_id for event in confirmed] == [task]


@pytest.mark.parametrize("step", ["batch child", "service child", "holder", "lease"])
async def test_a_lock_that_comes_meanwhile_refuses(world: World, step: str) -> None:
    scope, path, parameters = STEPS[step]
    agent, task = await _begin(world, scope, path, parameters)
    minted = Minted(world)
    admin = world.caller("admins/root")
    lock = lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(scope=scope), reason="a test")

    async with paused(world, path, agent.issue(scope, task_id=task, parameters=parameters)) as asking:
        await admin.locks.CreateLock(lock)

    answer = await refused(asking)
    assert answer.reason in ("LOCKED", "MINT_FAILED", "VAULT_UNAVAILABLE")
    for token in minted.children:
        await until(dead(world, token))
    await _all_settled(world, agent, task)


@pytest.mark.parametrize("scope", ["reports-secret", "reports-service"])
async def test_a_scope_that_changes_meanwhile_is_decided_anew(world: World, scope: str) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    current = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name=scope))).scope
    document = current.document.replace("default: 5m", "default: 4m")
    minted = Minted(world)

    async with paused(world, CHILD, agent.issue(scope)) as asking:
        # The anchor's creation is what was caught; the child follows it.
        await admin.scopes.UpdateScope(scope_service_pb2.UpdateScopeRequest(document=document, etag=current.etag))
    issued = await asking

    record, _ = await world.record_of(issued.credential.issuance_id)
    assert record.scope_version == 2
    assert len(await world.issuances("state = ACTIVE")) == 1
    assert len((await agent.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks) == 1
    assert minted.tokens


@pytest.mark.parametrize("scope", ["reports-secret", "reports-service"])
async def test_what_was_minted_under_changed_rules_is_recorded_as_undelivered(world: World, scope: str) -> None:
    agent, task = await _begin(world, scope, CHILD, {})
    admin = world.caller("admins/root")
    current = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name=scope))).scope

    async with paused(world, CHILD, agent.issue(scope, task_id=task)) as asking:
        await admin.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(name=scope, etag=current.etag))

    assert (await refused(asking)).reason == "SCOPE_DENIED"
    lost = [issuance for issuance in await world.issuances() if issuance.end_reason == "undelivered"]
    assert len(lost) == 1
    assert lost[0].fingerprint
    await _all_settled(world, agent, task)


async def _go_away(asking: "asyncio.Future[T]") -> None:
    """Cancel a call, and wait until the broker has heard of it: else it might still answer."""
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: any(work.get_name() == "take back" for work in asyncio.all_tasks()))


@pytest.mark.parametrize("step", ["batch child", "service child", "lease"])
async def test_a_caller_that_goes_away_leaves_nothing_alive_that_can_be_revoked(world: World, step: str) -> None:
    scope, path, parameters = STEPS[step]
    agent, task = await _begin(world, scope, path, parameters)
    before = {issuance.id for issuance in await world.issuances()}
    minted = Minted(world)

    async with paused(world, path, agent.issue(scope, task_id=task, parameters=parameters)) as asking:
        await _go_away(asking)

    async def recorded() -> list[issuance_pb2.Issuance]:
        wanted = (issuance_pb2.ISSUANCE_STATE_ACTIVE, issuance_pb2.ISSUANCE_STATE_REVOKED)
        new = [issuance for issuance in await world.issuances() if issuance.id not in before]
        return [issuance for issuance in new if issuance.state == wanted[step != "batch child"]]

    assert len(await until(recorded)) == 1
    if step != "batch child":
        for token in minted.children:
            await until(dead(world, token))
    await _all_settled(world, agent, task)


async def test_a_caller_that_goes_away_from_a_failing_mint_leaves_nothing(world: World) -> None:
    agent, task = await _begin(world, "reports-db", LEASE, READONLY)
    minted = Minted(world)
    world.proxy.fail(LEASE, "error_after")

    async with paused(world, CHILD, agent.issue("reports-db", task_id=task, parameters=READONLY)) as asking:
        await _go_away(asking)

    await until(lambda: len(minted.children) == 1)
    for token in minted.children:
        await until(dead(world, token))
    await _all_settled(world, agent, task)


async def test_stopping_waits_for_what_is_being_minted(world: World) -> None:
    agent, task = await _begin(world, "reports-service", CHILD, {})
    minted = Minted(world)

    async with paused(world, CHILD, agent.issue("reports-service", task_id=task)) as asking:
        await _go_away(asking)
        stopping = asyncio.create_task(world.app.stop())
    await stopping

    await world.start()
    agent = world.caller()
    await _all_settled(world, agent, task)
    for token in minted.children:
        await until(dead(world, token))


async def test_what_outlasts_the_patience_of_a_stop_is_taken_back_before_the_end(bare_world: World) -> None:
    world = bare_world
    limits = world.settings.limits.model_copy(update={"drain_timeout": timedelta(milliseconds=100)})
    world.settings = world.settings.model_copy(update={"limits": limits})
    await world.start()
    await world.apply(*SCOPES)
    agent, task = await _begin(world, "reports-service", CHILD, {})
    minted = Minted(world)

    async with paused(world, CHILD, agent.issue("reports-service", task_id=task)) as asking:
        stopping = asyncio.create_task(world.app.stop())
        await asyncio.wait([asking])
        assert isinstance(asking.exception(), grpc.aio.AioRpcError)
    await stopping

    await world.start()
    for token in minted.children:
        await until(dead(world, token))


async def test_a_mint_and_its_record_that_fail_together_leave_nothing(world: World) -> None:
    agent, task = await _begin(world, "reports-db", LEASE, READONLY)
    minted = Minted(world)
    world.proxy.fail(LEASE, "error_after")

    with failing_inserts(world.settings, "events", "NEW.type = 'credential.mint_failed'"):
        answer = await refused(agent.issue("reports-db", task_id=task, parameters=READONLY))

    assert answer.reason == "VAULT_UNAVAILABLE"
    for token in minted.children:
        await until(dead(world, token))
    await _all_settled(world, agent, task)


async def test_an_anchor_whose_end_cannot_be_recorded_is_revoked_all_the_same(world: World) -> None:
    agent, task = await _begin(world, "reports-secret", CHILD, {})
    minted = Minted(world)

    with (
        failing_inserts(world.settings, "issuances", "NEW.scope <> ''"),
        failing_inserts(world.settings, "revocations", "NEW.reason <> ''"),
    ):
        await refused(agent.issue("reports-secret", task_id=task))

    for token in minted.children:
        await until(dead(world, token))
    await _all_settled(world, agent, task)


@contextlib.contextmanager
def writes_held(world: World) -> Iterator[None]:
    """Let nobody write to the database for a while; reads go on."""
    url = database_url(world.settings)
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("LOCK TABLE tasks, anchors, issuances IN EXCLUSIVE MODE")
        yield
        connection.rollback()


async def test_concurrent_requests_with_one_id_start_one_task(world: World, postgres: Postgres) -> None:
    agent, request_id = world.caller(), str(uuid4())

    with counting() as seen, writes_held(world):
        asking = [asyncio.create_task(agent.issue("reports-secret", request_id=request_id)) for _ in range(6)]
        # All have looked, found no task, and wait to be the one that starts it.
        await until(lambda: sum("FROM issuances" in sql and "request_id" in sql for sql in seen.sql) >= 6)
    answers = await asyncio.gather(*asking, return_exceptions=True)

    refusals = [Refused(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [refusal.reason for refusal in refusals] == ["REQUEST_ID_REUSED"] * 5
    assert len((await agent.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks) == 1


async def test_rules_that_never_hold_still_end_in_overload() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise PolicyChanged

    with pytest.raises(Overloaded):
        await until_settled(attempt)
    assert 1 < attempts <= 10


async def test_a_missing_role_in_vault_says_so_to_admins_only(world: World) -> None:
    roles = world.admin.adapter.list("/v1/auth/token/roles")["data"]["keys"]
    for role in roles:
        if role.startswith("credbroker-payments-admin-"):
            world.admin.adapter.delete(f"/v1/auth/token/roles/{role}")

    answer = await refused(world.caller("payments/bot").issue("payments-admin"))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MINT_FAILED")
    assert "role" not in answer.text
    event = (await world.events('type = "request.failed"'))[0]
    assert "unknown role" in event.detail
