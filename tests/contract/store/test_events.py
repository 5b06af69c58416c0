"""Audit events, on every database."""

import sqlite3
from collections.abc import Sequence

import psycopg
import pytest
from sqlalchemy import make_url

from broker.ids import new_id
from broker.model import AuditEvent, Outcome, Page, Task
from broker.secret import Secret
from broker.store import Store, events
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, NOW, a_task, an_event
from tests.fixtures.store import running


async def appended(store: Store, *records: AuditEvent) -> Sequence[AuditEvent]:
    await store.write(lambda conn: events.append(conn, records))
    return records


async def everything(store: Store) -> Sequence[AuditEvent]:
    return (await store.read(lambda conn: events.page(conn, Page(size=1000)))).items


async def test_events_come_back_as_they_were_appended(store: Store) -> None:
    full = an_event(
        task_id=new_id(),
        issuance_id=new_id(),
        reason="SCOPE_DENIED",
        detail="who[0]: \r\n\x1b[2J 🦊 %s {} ' \" \\",
        outcome=Outcome.DENIED,
        attributes={"a": [1, 2.5, None, True, {"b": "ü"}], "": ""},
    )
    bare = AuditEvent(id=new_id(), time=NOW, type="broker.started", outcome=Outcome.SUCCESS, actor="broker")
    await appended(store, full, bare)
    assert await everything(store) == [bare, full]


async def test_appending_nothing_is_nothing(store: Store) -> None:
    await appended(store)
    assert await everything(store) == []


@pytest.mark.parametrize("name", ["actor", "method", "reason", "detail", "peer", "type", "agent", "scope"])
@pytest.mark.parametrize(
    ("hostile", "kept"),
    [
        ("nul \x00 inside", "nul \\u0000 inside"),
        ("half \ud800 and \udfff", "half \\ud800 and \\udfff"),
        ("\x00" * 5, "\\u0000" * 5),
    ],
)
async def test_hostile_text_is_escaped_and_the_event_kept(store: Store, name: str, hostile: str, kept: str) -> None:
    await appended(store, an_event(**{name: hostile}))
    assert [getattr(event, name) for event in await everything(store)] == [kept]


@pytest.mark.parametrize("name", ["type", "agent", "scope", "detail", "actor"])
@pytest.mark.parametrize("character", ["x", "é", "🦊", "\x00"])
async def test_text_without_end_is_cut_and_the_event_kept(store: Store, name: str, character: str) -> None:
    await appended(store, an_event(**{name: character * 200_000}))
    [event] = await everything(store)
    found = getattr(event, name)
    assert 500 < len(found) <= 8192
    assert found.endswith("…")


async def test_hostile_attributes_are_kept_as_far_as_json_goes(store: Store) -> None:
    hostile = {"nul \x00": ["\ud800", float("nan"), float("inf"), -0.0, {"k\x00": "v\x00"}], "big": 2**70}
    await appended(store, an_event(attributes=hostile))
    [event] = await everything(store)
    assert event.attributes == {
        "nul \\u0000": ["\\ud800", "nan", "inf", -0.0, {"k\\u0000": "v\\u0000"}],
        "big": 2**70,
    }


async def test_the_life_of_a_credential_is_its_events_and_its_tasks_oldest_first(
    store: Store, task: Task, issue: Issue
) -> None:
    issuance, sibling = await issue(), await issue()
    started = an_event(type="task.started", task_id=task.id)
    issued = an_event(task_id=task.id, issuance_id=issuance.id)
    denied = an_event(issuance_id=issuance.id, outcome=Outcome.DENIED)
    ended = an_event(type="task.completed", task_id=task.id)
    revoked = an_event(type="credential.revoked", task_id=task.id, issuance_id=issuance.id)
    failed = an_event(type="request.failed", task_id=task.id, outcome=Outcome.FAILURE)
    unrelated = [
        an_event(task_id=task.id, issuance_id=sibling.id),
        an_event(task_id=a_task().id),
        an_event(task_id=None),
        an_event(type="request.refused", task_id=task.id, outcome=Outcome.DENIED),
    ]
    await appended(store, *unrelated, revoked, ended, issued, failed, denied, started)
    found = await store.read(lambda conn: events.of_issuance(conn, issuance))
    assert found == [started, issued, denied, ended, revoked, failed]


async def test_a_credentials_life_is_told_within_bounds(store: Store, task: Task, issue: Issue) -> None:
    issuance = await issue()
    noise = [an_event(type="request.failed", task_id=task.id, outcome=Outcome.FAILURE) for _ in range(1500)]
    last = an_event(task_id=task.id, issuance_id=issuance.id)
    await appended(store, *noise, last)
    found = await store.read(lambda conn: events.of_issuance(conn, issuance))
    assert found == [*noise[:1000], last]


class TestAppendOnly:
    """The database itself refuses changes, to whoever connects to it."""

    @pytest.fixture
    async def event(self, store: Store) -> AuditEvent:
        event = an_event()
        await appended(store, event)
        return event

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET detail = 'nothing happened'",
            "UPDATE events SET id = id",
            "DELETE FROM events",
            "DELETE FROM events WHERE agent = 'spiffe://example.org/agent'",
        ],
    )
    async def test_changes_are_refused(
        self, store: Store, event: AuditEvent, database: Secret[str], statement: str
    ) -> None:
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RestrictViolation), match="append-only"):
            run_as_somebody_else(database, statement)
        assert await everything(store) == [event]


async def test_emptying_is_refused(postgres_url: Secret[str]) -> None:
    async with running(postgres_url) as store:
        [event] = await appended(store, an_event())
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            run_as_somebody_else(postgres_url, "TRUNCATE events")
        assert await everything(store) == [event]


async def test_replacing_is_refused(sqlite_url: Secret[str]) -> None:
    async with running(sqlite_url) as store:
        [event] = await appended(store, an_event())
        with pytest.raises(RuntimeError, match="append-only"):
            await store.write(lambda conn: conn.exec_driver_sql("INSERT OR REPLACE INTO events SELECT * FROM events"))
        assert await everything(store) == [event]


def run_as_somebody_else(database: Secret[str], statement: str) -> None:
    url = make_url(database.reveal())
    if url.drivername == "sqlite":
        connection = sqlite3.connect(str(url.database))
        try:
            with connection:
                connection.execute(statement)
        finally:
            connection.close()
        return
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as session:
        session.execute(statement)


async def test_agents_are_found_by_their_escaped_name(store: Store) -> None:
    await appended(store, an_event(agent=AGENT + "\x00"), an_event())
    page = Page(filter=f'agent = "{AGENT}\\\\u0000"')
    found = await store.read(lambda conn: events.page(conn, page))
    assert [event.agent for event in found.items] == [AGENT + "\\u0000"]
