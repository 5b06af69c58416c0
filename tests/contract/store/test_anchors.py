"""Anchors, on every database."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.ids import new_id
from broker.model import AnchorRecord, AnchorState, Task
from broker.store import Store, anchors
from tests.fixtures.records import HOUR, NOW, a_task, an_anchor

SECOND = timedelta(seconds=1)


async def stored(store: Store, anchor: AnchorRecord) -> AnchorRecord:
    await store.write(lambda conn: anchors.insert(conn, anchor))
    return anchor


async def of(store: Store, task: Task) -> list[AnchorRecord]:
    return await store.read(lambda conn: anchors.of_task(conn, task.id))


async def test_anchors_come_back_oldest_first_as_they_were_stored(store: Store, task: Task) -> None:
    first = await stored(store, an_anchor(task, state=AnchorState.CREATING, accessor=None))
    second = await stored(store, an_anchor(task))
    assert await of(store, task) == [first, second]
    assert await of(store, a_task()) == []


@pytest.mark.parametrize("state", list(AnchorState))
async def test_only_an_intent_becomes_active(store: Store, task: Task, state: AnchorState) -> None:
    anchor = await stored(store, an_anchor(task, state=state))
    activated = await store.write(lambda conn: anchors.activate(conn, anchor.id, "made", NOW + 2 * HOUR))
    assert activated is (state is AnchorState.CREATING)
    expected = replace(anchor, state=AnchorState.ACTIVE, accessor="made", expires_at=NOW + 2 * HOUR)
    assert await of(store, task) == [expected if activated else anchor]


async def test_an_unknown_anchor_does_not_become_active(store: Store) -> None:
    assert not await store.write(lambda conn: anchors.activate(conn, new_id(), "made", NOW))


async def test_intents_left_behind_are_found_oldest_first(store: Store, task: Task) -> None:
    intent = {"state": AnchorState.CREATING, "accessor": None}
    third, first, second = [
        await stored(store, an_anchor(task, **intent, created_at=NOW + n * SECOND)) for n in (3, 1, 2)
    ]
    await stored(store, an_anchor(task, created_at=NOW))
    assert await store.read(lambda conn: anchors.creating_before(conn, NOW + 3 * SECOND, 10)) == [first, second]
    assert await store.read(lambda conn: anchors.creating_before(conn, NOW + HOUR, 2)) == [first, second]
    assert third in await store.read(lambda conn: anchors.creating_before(conn, NOW + HOUR, 3))


async def test_a_state_can_be_set(store: Store, task: Task) -> None:
    anchor, other = await stored(store, an_anchor(task)), await stored(store, an_anchor(task))
    await store.write(lambda conn: anchors.note_gone(conn, [anchor.id]))
    assert await of(store, task) == [replace(anchor, state=AnchorState.GONE), other]
