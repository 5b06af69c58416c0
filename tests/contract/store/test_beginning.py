"""Tasks and anchors whose beginnings share a transaction, on every database."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.anchors import Beginning, _adopt, _intend
from broker.audit.catalogue import TASK_STARTED
from broker.errors import TaskEnded
from broker.ids import new_id
from broker.model import Anchor, AnchorRecord, AnchorState, Page, Task, TaskState
from broker.policy import Policy, PolicyChanged
from broker.secret import Secret
from broker.store import Store, anchors, events, policy, revocations, tasks
from tests.fixtures.records import NOW, a_task, an_anchor, an_event
from tests.fixtures.store import counting


def intent(task: Task) -> AnchorRecord:
    return an_anchor(task, state=AnchorState.CREATING, accessor=None)


def beginning(task: Task, revision: int) -> tuple[AnchorRecord, Beginning]:
    rules = Policy(revision=revision, scopes={}, locks=())
    return intent(task), Beginning(task, rules, an_event(type=TASK_STARTED, task_id=task.id))


async def test_each_is_judged_by_itself(store: Store, task: Task) -> None:
    revision = await store.read(policy.revision)
    request = new_id()
    new, first, second, outdated, over = (
        a_task(),
        a_task(request_id=request),
        a_task(request_id=request),
        a_task(),
        a_task(state=TaskState.COMPLETED, ended_at=NOW),
    )
    await store.write(lambda conn: tasks.insert(conn, over))
    asked = [
        beginning(new, revision),
        (intent(task), None),
        beginning(first, revision),
        beginning(second, revision),
        beginning(outdated, revision - 1),
        (intent(over), None),
        (intent(a_task()), None),
    ]

    refusals = await store.write(lambda conn: _intend(conn, asked))

    kinds = [type(None)] * 3 + [PolicyChanged] * 2 + [TaskEnded] * 2
    assert [type(refusal) for refusal in refusals] == kinds
    for record, begun in asked[:3]:
        assert await store.read(lambda conn, of=record.task_id: anchors.of_task(conn, of)) == [record]  # type: ignore[misc]
        if begun is not None:
            assert await store.read(lambda conn, of=record.task_id: tasks.get(conn, of)) == begun.task  # type: ignore[misc]
    for record, begun in asked[3:]:
        assert await store.read(lambda conn, of=record.task_id: anchors.of_task(conn, of)) == []  # type: ignore[misc]
        if begun is not None:
            assert await store.read(lambda conn, of=record.task_id: tasks.get(conn, of)) is None  # type: ignore[misc]
    recorded = (await store.read(lambda conn: events.page(conn, Page()))).items
    assert {event.task_id for event in recorded} == {new.id, first.id}


async def test_an_anchor_of_a_task_that_ended_meanwhile_is_queued(store: Store) -> None:
    active, over = a_task(), a_task()
    records = [intent(active), intent(over)]
    made = [
        Anchor(one.id, one.task_id, one.role, f"accessor-{one.id}", Secret("s.x"), NOW + timedelta(minutes=n))
        for n, one in enumerate(records, 1)
    ]
    for one in (active, over):
        await store.write(lambda conn, one=one: tasks.insert(conn, one))  # type: ignore[misc]
    await store.write(lambda conn: anchors.insert(conn, *records))
    await store.write(lambda conn: tasks.end(conn, [over.id], TaskState.COMPLETED, NOW))

    assert await store.write(lambda conn: _adopt(conn, [(one, NOW) for one in made])) == [True, False]

    states = (AnchorState.ACTIVE, AnchorState.REVOKING)
    for record, anchor, state in zip(records, made, states, strict=True):
        (found,) = await store.read(lambda conn, of=record.task_id: anchors.of_task(conn, of))  # type: ignore[misc]
        assert found == replace(record, state=state, accessor=anchor.accessor, expires_at=anchor.expires_at)
    (entry,) = await store.read(lambda conn: revocations.of_task(conn, over.id))
    assert (entry.accessor, entry.anchor_id) == (made[1].accessor, made[1].id)
    assert await store.read(lambda conn: revocations.of_task(conn, active.id)) == []


@pytest.mark.parametrize("many", [1, 16])
async def test_however_many_share_a_transaction_they_share_its_statements(store: Store, many: int) -> None:
    revision = await store.read(policy.revision)
    asked = [beginning(a_task(), revision) for _ in range(many)]
    with counting() as seen:
        await store.write(lambda conn: _intend(conn, asked))
    assert (len(seen.sql), seen.commits) == (4, 1)
