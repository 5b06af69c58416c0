"""What the sweeper has to get done although the database refuses some of it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from credbroker.v1 import issuance_pb2, task_pb2, task_service_pb2

from tests.faults.test_promises import dead, failing_inserts, works
from tests.fixtures.waiting import until
from tests.fixtures.world import World


async def test_one_record_that_the_database_refuses_keeps_no_other_from_its_end(world: World) -> None:
    names = ["agents/a", "agents/b", "agents/refused", "agents/c", "agents/d"]
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    spec.timeout.FromTimedelta(timedelta(minutes=3))
    issued = {name: await world.caller(name).issue("reports-secret", spec=spec) for name in names}
    tokens = {name: reply.credential.vault_token.token for name, reply in issued.items()}

    with failing_inserts(world.settings, "events", "NEW.type = 'task.deadline_exceeded' AND NEW.agent LIKE '%refused'"):
        world.clock.offset = timedelta(minutes=4)
        for name in set(names) - {"agents/refused"}:
            await until(dead(world, tokens[name]))
        assert works(world, tokens["agents/refused"])

    await until(dead(world, tokens["agents/refused"]))
    reply = await world.caller("agents/refused").tasks.GetTask(
        task_service_pb2.GetTaskRequest(id=issued["agents/refused"].task.id)
    )
    assert reply.task.state == task_pb2.TASK_STATE_DEADLINE_EXCEEDED


async def test_what_vault_has_ended_by_itself_is_recorded_without_a_revocation(world: World) -> None:
    agent = world.caller()
    gone = await agent.issue("reports-service")
    lives = await agent.issue("reports-service", task_id=gone.task.id)
    world.admin.auth.token.revoke(gone.credential.vault_token.token)
    asked = world.proxy.count("auth/token/revoke-accessor")

    # OpenBao's own time does not move: the other one has not ended there.
    world.clock.offset = timedelta(minutes=6)

    await until(ended(world, gone.credential.issuance_id))
    await until(ended(world, lives.credential.issuance_id))
    assert not works(world, lives.credential.vault_token.token)
    for issued in (gone, lives):
        record, events = await world.record_of(issued.credential.issuance_id)
        assert record.state == issuance_pb2.ISSUANCE_STATE_EXPIRED
        assert [dict(event.attributes)["confirmed_by"] for event in events if event.type == "credential.expired"] == [
            "vault"
        ]
    assert world.proxy.count("auth/token/revoke-accessor") == asked + 1


async def test_what_vault_could_not_be_asked_about_is_not_called_ended(world: World) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-service")
    token = issued.credential.vault_token.token
    cut = world.proxy.fail("accessor", "refuse_before", times=10_000)
    world.clock.offset = timedelta(minutes=6)

    async def pending() -> bool:
        record, _ = await world.record_of(issued.credential.issuance_id)
        return bool(record.state == issuance_pb2.ISSUANCE_STATE_REVOKING)

    await until(pending)
    assert cut.times < 10_000
    assert works(world, token)
    world.proxy.heal()

    await until(ended(world, issued.credential.issuance_id))
    assert not works(world, token)


def ended(world: World, issuance_id: str) -> Callable[[], Awaitable[bool]]:
    async def has_ended() -> bool:
        return (await world.record_of(issuance_id))[0].HasField("end_time")

    return has_ended
