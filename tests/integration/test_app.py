"""Starting, being ready, and stopping; and what happens when a part is not as it should be."""

from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from credbroker.v1 import scope_service_pb2, task_pb2, task_service_pb2
from grpc_health.v1 import health_pb2
from sqlalchemy import create_engine, text

from broker.app import App, read_key
from broker.dev.pki import DevAuthority
from broker.errors import ConfigError, StoreUnavailable
from broker.secret import Secret
from broker.store import replicas
from tests.fixtures.store import running
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused


async def health(world: World) -> int:
    credentials = grpc.ssl_channel_credentials(world.authority.certificate_pem)
    async with grpc.aio.secure_channel(world.app.addresses["bearer"], credentials) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = await check(health_pb2.HealthCheckRequest())
    return int(reply.status)


async def test_it_is_ready_only_while_vault_is_there(world: World) -> None:
    serving, away = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    async def is_now(status: int) -> bool:
        return await health(world) == status

    await until(lambda: is_now(serving))
    world.proxy.fail("sys/seal-status", "refuse_before", times=10_000)
    await until(lambda: is_now(away))
    world.proxy.heal()
    await until(lambda: is_now(serving))


async def test_it_starts_while_vault_is_away_and_serves_when_it_is_back(bare_world: World) -> None:
    world = bare_world
    world.proxy.fail("", "refuse_before", times=10_000)
    await world.start()
    assert await health(world) == health_pb2.HealthCheckResponse.NOT_SERVING
    world.proxy.heal()

    async def serving() -> bool:
        return await health(world) == health_pb2.HealthCheckResponse.SERVING

    await until(serving)
    await world.apply(*SCOPES)
    assert (await world.caller().issue("reports-secret")).credential.vault_token.token


async def test_it_is_among_the_replicas_until_it_ends(bare_world: World) -> None:
    world = bare_world
    await world.start()
    async with running(Secret(world.settings.database.url.get_secret_value())) as store:

        async def names() -> list[str]:
            return [replica.name for replica in await store.read(replicas.seen)]

        assert await until(names) == [world.app.name]
        await world.app.stop()
        assert await names() == []


async def test_a_database_that_is_not_migrated_keeps_it_from_starting(bare_world: World) -> None:
    url = Secret(f"sqlite:///{bare_world.folder / 'empty.db'}")
    (bare_world.folder / "empty.db").touch()

    with pytest.raises(StoreUnavailable, match="broker db upgrade"):
        await App.start(bare_world.configure(url))


@pytest.mark.parametrize("content", [b"short", b"x" * 5000, None])
def test_a_fingerprint_key_that_is_no_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match="fingerprint_key_file") as caught:
        read_key(file)

    assert str(file) in caught.value.detail


async def test_a_stored_scope_that_cannot_be_used_denies_and_leaves_the_others(world: World) -> None:
    engine = create_engine(world.settings.database.url.get_secret_value())
    with engine.begin() as connection:
        connection.execute(text("UPDATE scopes SET document = 'broken' WHERE name = 'reports-service'"))
        connection.execute(text("UPDATE policy_revision SET revision = revision + 1"))
    engine.dispose()
    agent = world.caller()

    assert (await refused(agent.issue("reports-service"))).reason == "SCOPE_DENIED"
    assert (await agent.issue("reports-secret")).credential.vault_token.token


@pytest.mark.long
async def test_a_workload_is_refused_once_its_authority_is_gone_from_the_bundle(world: World) -> None:
    workload = world.workload("spiffe://example.test/agents/reports")
    await workload.tasks.ListTasks(task_service_pb2.ListTasksRequest())

    (world.folder / "ca.pem").write_bytes(DevAuthority("example.test").certificate_pem)

    async def turned_away() -> bool:
        try:
            await workload.tasks.ListTasks(task_service_pb2.ListTasksRequest())
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    await until(turned_away)


async def test_revocation_goes_on_by_itself_until_vault_confirms(world: World) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-db", parameters={"role": "readonly"})
    world.proxy.fail("auth/token/revoke-accessor", "refuse_before", times=10_000)

    ended = await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))

    assert ended.task.revocation == task_pb2.REVOCATION_STATE_PENDING
    record, _ = await world.record_of(issued.credential.issuance_id)
    assert record.revocation == task_pb2.REVOCATION_STATE_PENDING
    assert not record.HasField("end_time")
    world.proxy.heal()

    async def confirmed() -> bool:
        found = await agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=issued.task.id))
        return bool(found.task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED)

    await until(confirmed)
    record, events = await world.record_of(issued.credential.issuance_id)
    assert record.HasField("end_time")
    assert events[-1].type == "task.revocation_confirmed"


async def test_without_a_reaper_an_abandoned_anchor_is_written_off_when_its_time_is_over(bare_world: World) -> None:
    world = bare_world
    vault = {**world.settings.vault.model_dump(mode="json", exclude_unset=True), "reaper_auth": None, "timeout": "2s"}
    vault["auth"] = {"kind": "token_file", "file": "vault-token"}
    vault["ca_file"] = "ca.pem"
    world.settings = world.configure(Secret(world.settings.database.url.get_secret_value()), vault=vault)
    await world.start()
    await world.apply(*SCOPES)
    agent = world.caller()
    spec = task_pb2.TaskSpec(purpose="a test")
    task = (await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))).task.id
    world.proxy.fail("auth/token/create/credbroker-", "drop_after")
    await refused(agent.issue("reports-secret", task_id=task))
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task))

    async def confirmed() -> bool:
        found = await world.caller().tasks.GetTask(task_service_pb2.GetTaskRequest(id=task))
        return bool(found.task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED)

    assert not await confirmed()
    world.clock.offset = timedelta(minutes=2)
    assert not await confirmed()
    world.clock.offset = timedelta(hours=1, minutes=1)
    await until(confirmed)


async def test_scopes_that_change_are_in_force_at_once(world: World) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    await agent.issue("reports-secret")
    scope = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-secret"))).scope
    await admin.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(name=scope.name, etag=scope.etag))

    assert (await refused(agent.issue("reports-secret"))).reason == "SCOPE_DENIED"
