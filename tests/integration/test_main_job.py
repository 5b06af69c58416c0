"""The main job over gRPC: get, use, end, dead, and on record."""

import hvac.exceptions
import psycopg
import pytest
from credbroker.v1 import issuance_pb2, task_pb2, task_service_pb2

from broker.dev.postgres import Postgres
from tests.fixtures.openbao import read_secret
from tests.fixtures.world import SECRET, World


async def test_a_task_gets_uses_and_loses_its_credentials(world: World, postgres: Postgres) -> None:
    agent = world.caller()

    first = await agent.issue("reports-secret")
    second = await agent.issue("reports-db", task_id=first.task.id, parameters={"role": "readonly"})

    vault = world.vault(first.credential.vault_token.token)
    user = dict(second.credential.leased.data)
    dsn = (
        f"host={postgres.host} port={postgres.port} dbname=postgres user={user['username']} password={user['password']}"
    )
    session = psycopg.connect(dsn)
    assert read_secret(vault, "reports/api") == SECRET
    assert session.execute("SELECT current_user").fetchone() == (user["username"],)

    ended = await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=first.task.id))

    assert ended.task.state == task_pb2.TASK_STATE_COMPLETED
    assert ended.task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED
    with pytest.raises(hvac.exceptions.Forbidden):
        read_secret(vault, "reports/api")
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    for issued in (first, second):
        record, events = await world.record_of(issued.credential.issuance_id)
        assert record.state == issuance_pb2.ISSUANCE_STATE_REVOKED
        assert record.revocation == task_pb2.REVOCATION_STATE_CONFIRMED
        kinds = [event.type for event in events]
        assert kinds.index("task.started") < kinds.index("credential.issued") < kinds.index("task.completed")
        assert kinds.index("task.completed") < kinds.index("credential.revoked")
