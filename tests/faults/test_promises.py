"""The promises that hold whatever breaks: recorded before delivered, recorded or revoked, bounded, nothing leaked."""

import asyncio
import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import grpc
import hvac.exceptions
import psycopg
import pytest
from credbroker.v1 import issuance_pb2, task_pb2, task_service_pb2
from sqlalchemy import MetaData, create_engine, select

from broker.config import Settings
from broker.dev.postgres import Postgres
from broker.secret import Secret
from tests.fakes.collector import Collector
from tests.fixtures.scraping import scrape
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused


def database_url(settings: Settings) -> str:
    return settings.database.url.get_secret_value()


@contextlib.contextmanager
def failing(settings: Settings, what: str, table: str, condition: str) -> Iterator[None]:
    """Let the database refuse to INSERT or UPDATE rows of a table that would satisfy a condition over NEW."""
    url = database_url(settings)
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(
                f"CREATE TRIGGER injected_{table} BEFORE {what} ON {table} WHEN {condition} "
                "BEGIN SELECT RAISE(ABORT, 'injected'); END"
            )
            connection.commit()
            yield
            connection.execute(f"DROP TRIGGER injected_{table}")
            connection.commit()
        return
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION injected() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE EXCEPTION 'injected'; END $$"
        )
        connection.execute(
            f"CREATE TRIGGER injected_{table} BEFORE {what} ON {table} FOR EACH ROW WHEN ({condition}) "
            "EXECUTE FUNCTION injected()"
        )
        yield
        connection.execute(f"DROP TRIGGER injected_{table} ON {table}")


def failing_inserts(settings: Settings, table: str, condition: str) -> AbstractContextManager[None]:
    """Let the database refuse rows of a table that satisfy a condition over NEW."""
    return failing(settings, "INSERT", table, condition)


class Minted:
    """What Vault made, as seen on its way back to the broker."""

    def __init__(self, world: World) -> None:
        self.tokens: list[str] = []
        self.children: list[str] = []
        world.proxy.on_reply = self._note

    def _note(self, path: str, body: dict[str, object]) -> None:
        auth = body.get("auth")
        if isinstance(auth, dict) and auth.get("client_token"):
            self.tokens.append(auth["client_token"])
            if path.endswith("/token/create"):
                self.children.append(auth["client_token"])


def works(world: World, token: str) -> bool:
    """Whether Vault still accepts this token, by the word of Vault's administrator."""
    try:
        world.admin.adapter.post("/v1/auth/token/lookup", json={"token": token})
    except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
        return False
    return True


def dead(world: World, token: str) -> Callable[[], bool]:
    return lambda: not works(world, token)


@pytest.mark.parametrize("table", ["issuances", "events"])
@pytest.mark.parametrize("scope", ["reports-secret", "reports-service", "reports-db"])
async def test_i1_what_cannot_be_recorded_is_neither_delivered_nor_left_alive(
    world: World, scope: str, table: str
) -> None:
    agent = world.caller()
    task = (await agent.issue("reports-secret")).task
    minted = Minted(world)
    condition = (
        "NEW.scope <> ''" if table == "issuances" else "NEW.type IN ('credential.issued', 'credential.requested')"
    )

    with failing_inserts(world.settings, table, condition):
        parameters = {"role": "readonly"} if scope == "reports-db" else {}
        answer = await refused(agent.issue(scope, task_id=task.id, parameters=parameters))

    assert answer.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    assert minted.children, "Vault was never asked, so nothing was put to the test"
    for token in minted.children:
        await until(dead(world, token))


async def test_i1_the_record_is_durable_before_the_reply(world: World) -> None:
    issued = await world.caller().issue("reports-secret")

    url = database_url(world.settings)
    query = "SELECT state FROM issuances WHERE fingerprint <> ''"
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as reader:
            rows = reader.execute(query).fetchall()
    else:
        with psycopg.connect(url.replace("+psycopg", "")) as reader:
            rows = reader.execute(query).fetchall()
    assert rows == [("active",)]
    assert issued.credential.vault_token.token


@contextlib.contextmanager
def broker_process(world: World) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """A broker in a process of its own, on the world's configuration; gives the process and its address."""
    log = world.folder / "broker.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker", "serve", "--config", str(world.folder / "broker.yaml")],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()


KILLED_AT = {
    "the anchor": ("reports-secret", "auth/token/create/credbroker-", {}),
    "the batch child": ("reports-secret", "auth/token/create", {}),
    "the service child": ("reports-service", "auth/token/create", {}),
    "the holder": ("reports-db", "auth/token/create", {"role": "readonly"}),
    "the lease": ("reports-db", "/creds/", {"role": "readonly"}),
}


@pytest.mark.parametrize("moment", KILLED_AT)
async def test_i2_what_a_killed_broker_had_minted_is_revoked_by_the_next(
    bare_world: World, moment: str, postgres: Postgres
) -> None:
    scope, path, parameters = KILLED_AT[moment]
    world = bare_world
    await world.start()
    await world.apply(*SCOPES)
    await world.app.stop()
    minted = Minted(world)
    users_before = _database_users(postgres)

    with broker_process(world) as (process, log):
        world.app.addresses = {"bearer": await until(lambda: _address_in(log))}
        agent = world.caller()
        spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
        started = await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))
        if not path.endswith("credbroker-"):
            # The anchor of another scope would be caught instead of what is meant.
            await agent.issue(scope, task_id=started.task.id, parameters=parameters)
        stuck = world.proxy.fail(path, "hang_after")
        asking = asyncio.create_task(agent.issue(scope, task_id=started.task.id, parameters=parameters))
        await asyncio.wait_for(stuck.seen.wait(), 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await asking
    world.proxy.heal()
    stuck.release.set()

    world.clock.offset = timedelta(minutes=2)
    await world.start()
    agent = world.caller()
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=started.task.id))

    assert minted.tokens
    for token in minted.tokens:
        await until(dead(world, token))
    # Of those before, some may be on their way out.
    await until(lambda: _database_users(postgres) <= users_before)

    async def settled() -> bool:
        task = await agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=started.task.id))
        return bool(task.task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED)

    await until(settled)
    states = {issuance.state for issuance in await world.issuances()}
    assert states <= {issuance_pb2.ISSUANCE_STATE_REVOKED, issuance_pb2.ISSUANCE_STATE_FAILED}


async def test_i3_a_credential_ends_in_vault_with_broker_and_database_gone(world: World, postgres: Postgres) -> None:
    agent = world.caller()
    lived = timedelta(seconds=2)
    token = (await agent.issue("reports-secret", ttl=lived)).credential.vault_token.token
    service = (await agent.issue("reports-service", ttl=lived)).credential.vault_token.token
    user = dict((await agent.issue("reports-db", ttl=lived, parameters={"role": "readonly"})).credential.leased.data)
    assert works(world, token)
    assert works(world, service)
    assert user["username"] in _database_users(postgres)

    await world.app.stop()
    world.proxy.fail("", "refuse_before", times=10_000)

    await until(dead(world, token))
    await until(dead(world, service))
    await until(lambda: user["username"] not in _database_users(postgres))


async def test_i3_an_anchor_ends_with_its_tasks_deadline(world: World) -> None:
    minted = Minted(world)
    spec = task_pb2.TaskSpec(purpose="a test")
    spec.timeout.FromTimedelta(timedelta(seconds=3))

    await world.caller().issue("reports-secret", spec=spec)
    await world.app.stop()

    for token in minted.tokens:
        await until(dead(world, token))


async def test_i8_no_secret_is_in_the_database_the_logs_the_metrics_or_the_traces(
    bare_world: World, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    world = bare_world
    world.settings = world.configure(
        Secret(database_url(world.settings)),
        metrics={"address": "127.0.0.1:0"},
        traces={"endpoint": collector.endpoint},
    )
    await world.start()
    await world.apply(*SCOPES)
    minted = Minted(world)
    agent = world.caller()
    caller_token = agent.token
    first = await agent.issue("reports-secret")
    second = await agent.issue("reports-db", task_id=first.task.id, parameters={"role": "readonly"})
    await agent.issue("reports-service", task_id=first.task.id)
    forged = f"{world.issuer.token('agents/reports').reveal()}AAAA"
    await refused(world.caller(token=forged).issue("reports-secret"))
    world.proxy.fail("auth/token/create", "error_after")
    await refused(agent.issue("reports-service", task_id=first.task.id))
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=first.task.id))
    secrets = [
        *minted.tokens,
        str(second.credential.leased.data["password"]),
        caller_token or "",
        forged,
        (world.folder / "vault-token").read_text(),
        (world.folder / "reaper-token").read_text(),
    ]

    everything = _dump(world.settings) + "".join(capfd.readouterr())
    everything += repr(world.app) + repr(vars(world.app)) + repr(world.settings)
    everything += repr(await scrape(world.app.addresses["metrics"]))
    await world.app.stop()
    assert collector.named("issue.mint")
    everything += collector.raw.decode("latin-1")

    assert len(secrets) >= 8
    assert first.credential.issuance_id.replace("-", "") in everything.replace("-", ""), (
        "what is searched is not what was written"
    )
    for secret in secrets:
        assert secret not in everything
        assert secret.rsplit(".", 1)[-1] not in everything


def _dump(settings: Settings) -> str:
    """Return every value of every table."""
    engine = create_engine(database_url(settings))
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        text = "\n".join(
            str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(select(table))
        )
    engine.dispose()
    return text


def _database_users(postgres: Postgres) -> set[str]:
    with psycopg.connect(postgres.dsn()) as connection:
        return {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")}


def _address_in(log: Path) -> str:
    found = re.search(r"bearer=(\d+)", log.read_text())
    return f"127.0.0.1:{found[1]}" if found else ""
