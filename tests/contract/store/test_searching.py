"""Filters find what they select, part by part, and no list reads a table from end to end; on every database."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from broker.errors import PageTokenInvalid
from broker.model import AuditEvent, Issuance, Page
from broker.secret import Secret
from broker.store import Store, events, issuances, paging
from broker.store.paging import PageOf
from tests.bench.volume_fill import History, agent_name, fill, scope_name

Listed = Issuance | AuditEvent
Statement = tuple[str, Any]

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
HISTORY = History(issuances=600, live=60, per_task=6, agents=10, scopes=4, span=timedelta(days=60), until=UNTIL)
SEARCHED = 40
LISTS: dict[str, Callable[[Connection, Page], PageOf[Any]]] = {"issuances": issuances.page, "events": events.page}


@pytest.fixture
async def everything(database: Secret[str], store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Listed]]:
    fill(database, HISTORY)
    found = {name: await whole(store, name, "") for name in LISTS}
    monkeypatch.setattr(paging, "SEARCHED", SEARCHED)
    return found


async def whole(store: Store, name: str, question: str, size: int = 1000) -> list[Listed]:
    """Return a list by following its pages."""
    found: list[Listed] = []
    token = ""
    while True:
        page = Page(size=size, token=token, filter=question)
        part = await store.read(lambda conn, page=page: LISTS[name](conn, page))  # type: ignore[misc]
        found += part.items
        token = part.next_token
        if not token:
            return found


def moment(days: int) -> str:
    return (UNTIL - timedelta(days=days)).isoformat()


def conditions(name: str, one: Listed) -> list[tuple[str, Callable[[Any], bool]]]:
    """Return what may be asked, some of it answered by `one`, with what it means."""
    time = "create_time" if name == "issuances" else "time"
    own = "state" if name == "issuances" else "type"
    at: Callable[[Any], datetime] = attrgetter("created_at" if name == "issuances" else "time")
    other = (
        ("scope_version = 2", lambda row: row.scope_version == 2)
        if name == "issuances"
        else ("outcome = DENIED", lambda row: row.outcome == "denied")
    )
    value = getattr(one, own)
    since, until = UNTIL - timedelta(days=40), UNTIL - timedelta(days=20)
    return [
        (f'agent = "{agent_name(0)}"', lambda row: row.agent == agent_name(0)),
        (f'agent != "{agent_name(0)}"', lambda row: row.agent != agent_name(0)),
        (f"scope = {scope_name(1)}", lambda row: row.scope == scope_name(1)),
        (f"task_id = {one.task_id}", lambda row: row.task_id == one.task_id),
        (f"{own} = {value}", lambda row: getattr(row, own) == value),
        (f"{own} != {value}", lambda row: getattr(row, own) != value),
        (f'{time} >= "{since.isoformat()}"', lambda row: at(row) >= since),
        (f'{time} > "{moment(30)}"', lambda row: at(row) > UNTIL - timedelta(days=30)),
        (f'{time} < "{until.isoformat()}"', lambda row: at(row) < until),
        (f'{time} <= "{at(one).isoformat()}"', lambda row: at(row) <= at(one)),
        (f'{time} = "{at(one).isoformat()}"', lambda row: at(row) == at(one)),
        other,
    ]


def combinations(name: str, one: Listed) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    known = conditions(name, one)
    for chosen in itertools.chain(
        itertools.combinations(known, 1), itertools.combinations(known, 2), itertools.combinations(known[::2], 3)
    ):
        yield (
            " AND ".join(question for question, _ in chosen),
            lambda row, chosen=chosen: all(  # type: ignore[misc]
                meaning(row) for _, meaning in chosen
            ),
        )


@pytest.mark.parametrize("name", LISTS)
async def test_pages_of_any_filter_are_what_it_selects(
    store: Store, everything: dict[str, list[Listed]], name: str
) -> None:
    rows = everything[name]
    assert rows == sorted(rows, key=lambda row: (row.created_at if name == "issuances" else row.time, row.id))[::-1]  # type: ignore[union-attr]
    for question, meaning in combinations(name, rows[len(rows) // 2]):
        assert await whole(store, name, question, size=7) == [row for row in rows if meaning(row)], question


async def test_a_page_ends_where_it_has_looked_long_enough(store: Store, everything: dict[str, list[Listed]]) -> None:
    page = await store.read(lambda conn: issuances.page(conn, Page(filter="kind = nothing")))
    assert (page.items, bool(page.next_token)) == ([], True)
    rest = await store.read(lambda conn: issuances.page(conn, Page(filter="kind = nothing", token=page.next_token)))
    assert (rest.items, bool(rest.next_token)) == ([], True)
    assert rest.next_token != page.next_token


async def test_a_made_up_token_leads_nowhere_outside_of_the_filter(
    store: Store, everything: dict[str, list[Listed]]
) -> None:
    question = f'create_time < "{moment(30)}"'
    digest = paging._digest("issuances", question, "")
    newest = everything["issuances"][0]
    token = paging._token(digest, (UNTIL, newest.id))
    with pytest.raises(PageTokenInvalid):
        await store.read(lambda conn: issuances.page(conn, Page(filter=question, token=token)))


@contextmanager
def noting(conn: Connection) -> Iterator[list[Statement]]:
    sent: list[Statement] = []

    def note(_conn: object, _cursor: object, statement: str, values: Any, _context: object, _many: object) -> None:
        sent.append((statement, values))

    event.listen(conn, "before_cursor_execute", note)
    yield sent
    event.remove(conn, "before_cursor_execute", note)


def plan(conn: Connection, statement: Statement) -> str:
    if conn.dialect.name == "sqlite":
        return str(conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement[0]}", statement[1]).all())
    # The tables of a test are so small that reading and sorting them whole would be cheaper.
    conn.execute(text("SET LOCAL enable_seqscan = off"))
    conn.execute(text("SET LOCAL enable_bitmapscan = off"))
    conn.execute(text("SET LOCAL enable_sort = off"))
    return str(conn.exec_driver_sql(f"EXPLAIN {statement[0]}", statement[1]).all())


@pytest.mark.parametrize("name", LISTS)
async def test_every_filter_follows_an_index_in_the_order_of_the_list(
    store: Store, everything: dict[str, list[Listed]], name: str
) -> None:
    """So a page reads no more than it shows, or has to look at: each statement has a limit, and none sorts."""
    one = everything[name][len(everything[name]) // 2]

    def look(conn: Connection) -> None:
        for question, _ in combinations(name, one):
            first = LISTS[name](conn, Page(size=7, filter=question))
            with noting(conn) as sent:
                LISTS[name](conn, Page(size=7, filter=question, token=first.next_token))
            for statement in sent:
                said = plan(conn, statement)
                assert "LIMIT" in statement[0]
                assert "_created_at_id" in said or "_time_id" in said, (question, said)
                assert "Sort" not in said, (question, said)
                assert "TEMP B-TREE" not in said, (question, said)

    await store.read(look)
