"""What an agent did of late: counted as far as asked, by indices, on every database."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from broker.model import AnchorRecord, IssuanceState, LockKind, Outcome
from broker.store import Store, events, issuances, locks
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, NOW, a_lock, an_event, an_issuance

OTHER = "spiffe://example.org/other"
REASONS = frozenset({"SCOPE_DENIED", "TTL_EXCEEDED"})
MINUTE = timedelta(minutes=1)


async def refuse(store: Store, times: int = 1, **changes: Any) -> None:
    given = {"type": "request.refused", "outcome": Outcome.DENIED, "reason": "SCOPE_DENIED", **changes}
    await store.write(lambda conn: events.append(conn, [an_event(**given) for _ in range(times)]))


async def refused(store: Store, since: datetime = NOW - MINUTE, most: int = 100) -> int:
    return await store.read(lambda conn: events.count_refused(conn, AGENT, since, REASONS, most))


async def issued(store: Store, since: datetime = NOW - MINUTE, most: int = 100) -> int:
    return await store.read(lambda conn: issuances.count_issued(conn, AGENT, since, most))


async def test_refusals_of_the_agent_itself_for_the_reasons_count(store: Store) -> None:
    await refuse(store, 3)
    await refuse(store, reason="TTL_EXCEEDED")
    assert await refused(store) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "LOCKED"},
        {"reason": "TASK_ENDED"},
        {"outcome": Outcome.FAILURE},
        {"outcome": Outcome.SUCCESS},
        {"agent": OTHER, "actor": OTHER},
        {"actor": "https://idp#admin"},
        {"actor": ""},
        {"agent": "", "actor": ""},
        {"agent": ""},
    ],
)
async def test_what_others_did_and_other_reasons_do_not(store: Store, changes: dict[str, Any]) -> None:
    await refuse(store, **changes)
    assert await refused(store) == 0


async def test_issuances_under_any_scope_count_but_failed_ones(store: Store, issue: Issue) -> None:
    for state in IssuanceState:
        await issue(state=state, scope=f"scope-{state.value}")
    await issue(agent=OTHER)
    assert await issued(store) == len(IssuanceState) - 1


async def test_what_came_before_does_not_count(store: Store, issue: Issue) -> None:
    for moment in (NOW - MINUTE, NOW):
        await refuse(store, time=moment)
        await issue(created_at=moment)
    assert (await refused(store, NOW), await issued(store, NOW)) == (0, 0)
    await refuse(store, time=NOW + MINUTE)
    await issue(created_at=NOW + MINUTE)
    assert (await refused(store, NOW), await issued(store, NOW)) == (1, 1)


async def test_counting_stops_where_it_is_told_to(store: Store, issue: Issue) -> None:
    await refuse(store, 5)
    for _ in range(5):
        await issue()
    assert (await refused(store, most=3), await issued(store, most=3)) == (3, 3)


async def test_the_newest_lock_of_an_agent_by_a_creator_is_found_also_when_it_has_ended(store: Store) -> None:
    first, second = (a_lock(creator="broker", created_at=NOW + n * MINUTE) for n in (1, 2))
    others = [
        a_lock(),
        a_lock(creator="broker", target=OTHER),
        a_lock(creator="broker", kind=LockKind.AGENT_PATTERN),
    ]
    for lock in (first, second, *others):
        await store.write(lambda conn, lock=lock: locks.insert(conn, lock))  # type: ignore[misc]
    await store.write(lambda conn: locks.lift(conn, second.id, "somebody", second.created_at))

    assert await store.read(lambda conn: locks.latest_of_agent(conn, AGENT, "broker", NOW)) == second
    assert await store.read(lambda conn: locks.latest_of_agent(conn, AGENT, "broker", second.created_at)) is None


def _plan(conn: Connection, work: Callable[[Connection], object]) -> str:
    sent: list[tuple[str, Any]] = []

    def note(_conn: object, _cursor: object, statement: str, values: Any, _context: object, _many: object) -> None:
        sent.append((statement, values))

    event.listen(conn, "before_cursor_execute", note)
    work(conn)
    event.remove(conn, "before_cursor_execute", note)
    [(statement, values)] = sent
    explain = "EXPLAIN QUERY PLAN" if conn.dialect.name == "sqlite" else "EXPLAIN"
    if conn.dialect.name == "postgresql":
        # The tables of a test are so small that reading them whole would be cheaper.
        conn.execute(text("SET LOCAL enable_seqscan = off"))
    return str(conn.exec_driver_sql(f"{explain} {statement}", values).all())


async def test_counting_reads_a_part_of_an_index(store: Store, anchor: AnchorRecord) -> None:
    def fill(conn: Connection) -> None:
        for moment in [NOW, NOW + MINUTE] * 10:
            for agent in (AGENT, *(f"{OTHER}/{number}" for number in range(50))):
                issuances.insert(conn, an_issuance(anchor, agent=agent, created_at=moment))
                common = {"agent": agent, "actor": agent, "time": moment}
                refusal = an_event(**common, outcome=Outcome.DENIED, reason="SCOPE_DENIED")
                events.append(conn, [refusal, *(an_event(**common) for _ in range(5))])
        conn.execute(text("ANALYZE"))

    await store.write(fill)
    plans = {
        "ix_events_refused": lambda conn: events.count_refused(conn, AGENT, NOW, REASONS, 20),
        "ix_issuances_agent_created_at_id": lambda conn: issuances.count_issued(conn, AGENT, NOW, 20),
    }
    for index, work in plans.items():
        plan = await store.read(lambda conn, work=work: _plan(conn, work))  # type: ignore[misc]
        assert index in plan
        assert "SCAN events" not in plan
        conditions = plan.partition("Index Cond")[2].partition("Filter")[0] or plan
        assert "agent" in conditions
        assert " > " in conditions or "created_at>?" in conditions or "time>?" in conditions, plan
