"""Inserting many rows, on every database."""

import pytest

from broker.errors import InvalidArgument
from broker.ids import new_id
from broker.model import AnchorRecord, Page, Task
from broker.store import Store, events, issuances, tasks
from broker.store.insertion import MOST_AT_ONCE
from tests.fixtures.records import AGENT, a_task, an_event, an_issuance
from tests.fixtures.store import counting

ODD = 2 * MOST_AT_ONCE + 5
"""Needs statements of several sizes."""


async def test_all_rows_are_as_they_were_given(store: Store, anchor: AnchorRecord) -> None:
    given = [an_issuance(anchor, parameters={"place": place, "ümlaut": [None, "x"]}) for place in range(ODD)]
    with counting() as seen:
        assert await store.write(lambda conn: issuances.insert_unless_reused(conn, given))
    assert len(seen.sql) == 3  # 64, 64 and 5 rows
    found = await store.read(lambda conn: [issuances.get(conn, one.id) for one in given])
    assert found == given


async def test_events_keep_their_order_and_content(store: Store) -> None:
    given = [an_event(reason=str(place), attributes={"place": place}) for place in range(ODD)]
    await store.write(lambda conn: events.append(conn, given))
    found = await store.read(lambda conn: events.page(conn, Page(size=ODD)))
    assert sorted(found.items, key=lambda one: one.id) == given


async def test_what_is_known_is_left_out_and_counted(store: Store, anchor: AnchorRecord) -> None:
    reused = new_id()
    earlier = an_issuance(anchor, request_id=reused)
    await store.write(lambda conn: issuances.insert(conn, earlier))
    twice = new_id()
    given = [an_issuance(anchor, request_id=request) for request in (None, reused, twice, twice, new_id(), None)]

    assert not await store.write(lambda conn: issuances.insert_unless_reused(conn, given))

    stored = await store.read(lambda conn: issuances.stored(conn, [one.id for one in given]))
    assert stored == {given[place].id for place in (0, 2, 4, 5)}
    assert await store.read(lambda conn: issuances.by_request(conn, AGENT, reused)) == earlier


async def test_what_no_database_can_hold_is_refused_before_anything_is_sent(store: Store, task: Task) -> None:
    with counting() as seen, pytest.raises(InvalidArgument):
        await store.write(lambda conn: tasks.insert(conn, a_task(agent="a\0b")))
    assert not any("INSERT" in statement for statement in seen.sql)
