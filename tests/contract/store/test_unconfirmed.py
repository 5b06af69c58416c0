"""What Vault has yet to confirm: listed and looked for by the index that holds nothing else."""

from typing import Any

from sqlalchemy import Connection, event, text

from broker.model import Page, Task
from broker.store import Store, revocations, unconfirmed
from tests.fixtures.records import HOUR, NOW, a_revocation

INDEX = "ix_revocations_backlog"


async def test_what_is_not_confirmed_is_listed_the_longest_waiting_first(store: Store, task: Task) -> None:
    entries = [a_revocation(task, requested_at=NOW - hours * HOUR) for hours in (2, 3, 0, 1)]
    done = a_revocation(task, requested_at=NOW - 4 * HOUR, confirmed_at=NOW)

    def fill(conn: Connection) -> None:
        for entry in (*entries, done):
            revocations.insert_all(conn, [entry])

    await store.write(fill)
    first = await store.read(lambda conn: unconfirmed.page(conn, Page(size=3)))
    second = await store.read(lambda conn: unconfirmed.page(conn, Page(size=3, token=first.next_token)))
    assert [*first.items, *second.items] == sorted(entries, key=lambda entry: entry.id)
    assert second.next_token == ""
    overdue = await store.read(lambda conn: unconfirmed.overdue(conn, NOW, 2))
    assert overdue == [entries[1], entries[0]]
    assert len(await store.read(lambda conn: unconfirmed.overdue(conn, NOW, 9))) == 3


async def test_the_history_costs_nothing(store: Store, task: Task) -> None:
    def fill(conn: Connection) -> None:
        for _ in range(300):
            revocations.insert_all(conn, [a_revocation(task, confirmed_at=NOW)])
        revocations.insert_all(conn, [a_revocation(task)])

    await store.write(fill)

    def plans(conn: Connection) -> list[str]:
        seen: list[tuple[str, Any]] = []

        def note(conn: Connection, cursor: object, statement: str, parameters: Any, *rest: object) -> None:
            seen.append((statement, parameters))

        event.listen(conn, "before_cursor_execute", note)
        unconfirmed.page(conn, Page())
        unconfirmed.overdue(conn, NOW, 10)
        event.remove(conn, "before_cursor_execute", note)
        sqlite = conn.dialect.name == "sqlite"
        if not sqlite:
            conn.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        return [str(conn.exec_driver_sql(explain + statement, values).all()) for statement, values in seen]

    assert [INDEX in plan for plan in await store.read(plans)] == [True, True]
