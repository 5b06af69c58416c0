"""What the sweeper has to get done although the database refuses some of it."""

from datetime import timedelta

from credbroker.v1 import task_pb2, task_service_pb2

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
