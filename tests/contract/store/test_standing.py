"""How much of everything there is, counted on every database by the indices made for it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, event, text

from broker.ids import new_id
from broker.model import AnchorRecord, IssuanceState, Standing, Task, TaskState
from broker.store import Store, locks, revocations, tasks
from broker.store.standing import standing
from tests.contract.store.conftest import Issue
from tests.fixtures.records import HOUR, NOW, a_lock, a_revocation, a_task

SECOND = timedelta(seconds=1)
EMPTY = Standing(
    active_tasks=0,
    unconfirmed_tasks=0,
    live_issuances=0,
    pending_revocations=0,
    failing_revocations=0,
    irrevocable_leases=0,
    oldest_pending_at=None,
    locks_in_force=0,
)
# Each holds, or is searched for, nothing but what is under way.
INDICES = (
    ("ix_tasks_active_due_at",),
    ("ix_tasks_unconfirmed",),
    ("ix_issuances_live_", "ix_issuances_state_created_at_id (state=?)"),
    ("ix_revocations_backlog",),
    ("ix_locks_unlifted",),
)


async def taken(store: Store) -> Standing:
    return await store.read(lambda conn: standing(conn, NOW))


async def test_an_empty_installation_stands_at_nothing(store: Store) -> None:
    assert await taken(store) == EMPTY


async def test_everything_under_way_is_counted_and_nothing_that_is_over(
    store: Store, task: Task, anchor: AnchorRecord, issue: Issue
) -> None:
    entries = [
        a_revocation(task, requested_at=NOW - 3 * SECOND),
        a_revocation(task, requested_at=NOW - 2 * SECOND, attempts=1),
        a_revocation(task, requested_at=NOW - SECOND, attempts=6),
        a_revocation(task, requested_at=NOW, attempts=6, lease_id="database/creds/x/1"),
        a_revocation(task, requested_at=NOW - HOUR, attempts=9, lease_id="database/creds/x/2", confirmed_at=NOW),
    ]
    ended = [a_task(), a_task(revocation_confirmed_at=NOW)]

    def fill(conn: Connection) -> None:
        for entry in entries:
            revocations.insert_all(conn, [entry])
        for one in ended:
            tasks.insert(conn, one)
            tasks.end(conn, [one.id], TaskState.COMPLETED, NOW)
        for lock in (a_lock(), a_lock(expires_at=NOW + HOUR), a_lock(expires_at=NOW), a_lock(id=(lifted := new_id()))):
            locks.insert(conn, lock)
        locks.lift(conn, lifted, "admin", NOW)

    await store.write(fill)
    for state in IssuanceState:
        await issue(state=state)

    assert await taken(store) == Standing(
        active_tasks=1,
        unconfirmed_tasks=1,
        live_issuances=3,
        pending_revocations=4,
        failing_revocations=3,
        irrevocable_leases=1,
        oldest_pending_at=NOW - 3 * SECOND,
        locks_in_force=2,
    )


async def test_the_cost_does_not_grow_with_the_history(store: Store, task: Task) -> None:
    def history(conn: Connection) -> None:
        for _ in range(60):
            over = a_task(revocation_confirmed_at=NOW)
            tasks.insert(conn, over)
            tasks.end(conn, [over.id], TaskState.COMPLETED, NOW)
            revocations.insert_all(conn, [a_revocation(over, confirmed_at=NOW)])

    await store.write(history)
    plans = await store.write(_plans)

    assert len(plans) == len(INDICES)
    for names in INDICES:
        assert sum(any(name in plan for name in names) for plan in plans) == 1, (names, plans)


def _plans(conn: Connection) -> list[str]:
    """Return how the database goes about each statement."""
    sent: list[tuple[str, Any]] = []

    def note(_conn: object, _cursor: object, statement: str, values: Any, _context: object, _many: object) -> None:
        sent.append((statement, values))

    event.listen(conn, "before_cursor_execute", note)
    standing(conn, NOW)
    event.remove(conn, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if conn.dialect.name == "sqlite" else "EXPLAIN"
    if conn.dialect.name == "postgresql":
        # What it finds out about the tables by itself, and when, decides otherwise.
        conn.execute(text("ANALYZE"))
        # The tables of a test are so small that reading them whole would be cheaper.
        conn.execute(text("SET LOCAL enable_seqscan = off"))
    return [str(conn.exec_driver_sql(f"{explain} {statement}", values).all()) for statement, values in sent]
