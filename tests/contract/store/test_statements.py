"""How many statements the hot paths send: none may creep in."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from broker.ids import new_id
from broker.model import AnchorRecord, IssuanceState, Page, Proof, Selection, Task, TaskState
from broker.store import Store, events, issuances, locks, policy, proofs, revocations, scopes, tasks
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, HOUR, NOW, a_revocation, a_scope, an_event, an_issuance
from tests.fixtures.store import counting

Work = Callable[[Connection], object]


async def cost(store: Store, work: Work) -> tuple[int, int]:
    with counting() as seen:
        await store.write(work)
    return len(seen.sql), seen.commits


async def test_recording_an_issuance(store: Store, anchor: AnchorRecord) -> None:
    def record(conn: Connection) -> None:
        issuances.insert(conn, an_issuance(anchor))
        events.append(conn, [an_event()])

    assert await cost(store, record) == (2, 1)


async def test_holding_a_decision_still(store: Store, task: Task) -> None:
    def hold(conn: Connection) -> None:
        policy.pin_revision(conn)
        tasks.pin_active(conn, [task.id])

    assert await cost(store, hold) == (2, 1)


async def test_everything_of_one_issuance(store: Store, task: Task, anchor: AnchorRecord) -> None:
    def record(conn: Connection) -> None:
        policy.pin_revision(conn)
        tasks.pin_standing(conn, {(anchor.id, task.id)})
        issuances.insert_unless_reused(conn, [an_issuance(anchor, request_id=new_id())])
        events.append(conn, [an_event(), an_event()])

    assert await cost(store, record) == (4, 1)


async def test_many_issuances_share_their_statements(store: Store, task: Task, anchor: AnchorRecord) -> None:
    def record(conn: Connection) -> None:
        policy.pin_revision(conn)
        tasks.pin_standing(conn, {(anchor.id, task.id)})
        issuances.insert_unless_reused(conn, [an_issuance(anchor, request_id=new_id()) for _ in range(16)])
        events.append(conn, [an_event() for _ in range(16)])

    assert await cost(store, record) == (4, 1)


async def test_a_task_from_start_to_confirmed_end(store: Store, task: Task, issue: Issue) -> None:
    issuance = await issue(state=IssuanceState.MINTING)
    locking = await store.read(lambda conn: conn.dialect.name == "postgresql")
    works: dict[str, tuple[Work, int]] = {
        "heartbeat": (lambda conn: tasks.heartbeat(conn, task.id, NOW), 1),
        "activate": (
            lambda conn: issuances.activate(
                conn,
                issuance.id,
                expires_at=NOW,
                max_expires_at=NOW,
                fingerprint="",
                lease_id=None,
                accessor=None,
                renewable=False,
            ),
            1,
        ),
        "end": (lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW), 1),
        "revoke": (lambda conn: issuances.revoke_of_tasks(conn, [task.id], "x", NOW), 1),
        "queue": (lambda conn: revocations.insert_all(conn, [a_revocation(task)]), 1),
        "confirm": (lambda conn: issuances.confirm(conn, [issuance.id, new_id()], NOW), 1),
        "confirm_revoked": (lambda conn: tasks.confirm_revoked(conn, [task.id], NOW), locking + 1),
    }
    for name, (work, statements) in works.items():
        assert await cost(store, work) == (statements, 1), name


@pytest.mark.parametrize("rows", [1, 30])
async def test_lists_cost_one_statement_however_long(store: Store, task: Task, issue: Issue, rows: int) -> None:
    issued = [await issue() for _ in range(rows)]
    await store.write(lambda conn: events.append(conn, [an_event(issuance_id=issued[0].id) for _ in range(rows)]))
    for number in range(rows):
        await store.write(lambda conn, name=f"s{number}": scopes.insert(conn, a_scope(name)))  # type: ignore[misc]
    works: dict[str, Work] = {
        "events.page": lambda conn: events.page(conn, Page()),
        "events.of_issuance": lambda conn: events.of_issuance(conn, issued[0]),
        "issuances.page": lambda conn: issuances.page(conn, Page(filter="state = ACTIVE")),
        "tasks.page": lambda conn: tasks.page(conn, Page(), AGENT),
        "tasks.due": lambda conn: tasks.due(conn, NOW + HOUR, 100),
        "scopes.current": scopes.current,
        "locks.in_force": lambda conn: locks.in_force(conn, NOW),
        "revocable": lambda conn: issuances.revocable(conn, Selection(scope="db-read"), 100),
        "count_live": lambda conn: issuances.count_live(conn, agent=AGENT, scope="db-read"),
    }
    for name, work in works.items():
        assert await cost(store, work) == (1, 1), name


async def test_events_of_one_transaction_are_sent_together(store: Store) -> None:
    assert await cost(store, lambda conn: events.append(conn, [an_event() for _ in range(64)])) == (1, 1)


async def test_consuming_a_proof(store: Store) -> None:
    for _ in range(2):
        assert await cost(store, lambda conn: proofs.consume(conn, Proof("a" * 64, NOW))) == (1, 1)
