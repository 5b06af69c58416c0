"""Statements whose text is kept, on every database: what SQLAlchemy would return, however long the lists are."""

import pytest
from sqlalchemy import Connection, bindparam, select, tuple_, update

from broker.model import Task, TaskState
from broker.store import Store, schema, tasks
from broker.store.listed import Listed
from tests.fixtures.records import AGENT, NOW, a_task
from tests.fixtures.store import counting

_table = schema.tasks
_FIND = (
    select(_table.c.id, _table.c.labels, _table.c.declared_scopes, _table.c.state, _table.c.deadline)
    .where(_table.c.id.in_(bindparam("ids_", expanding=True)), _table.c.state == TaskState.ACTIVE)
    .order_by(_table.c.id)
)
_END = (
    update(_table)
    .where(tuple_(_table.c.id, _table.c.agent).in_(bindparam("owned_", expanding=True)))
    .values(state=bindparam("state_"), ended_at=bindparam("now_"), purpose="100% done")
    .returning(_table.c.id)
)


async def stored(store: Store, count: int) -> list[Task]:
    made = [a_task(labels={"number": str(number)}) for number in range(count)]

    def insert(conn: Connection) -> None:
        for task in made:
            tasks.insert(conn, task)

    await store.write(insert)
    return made


@pytest.mark.parametrize("count", [1, 2, 3, 9])
async def test_rows_are_those_that_sqlalchemy_returns(store: Store, count: int) -> None:
    made = await stored(store, 10)
    values = {"ids_": [task.id for task in made[:count]]}
    expected = [tuple(row) for row in await store.read(lambda conn: conn.execute(_FIND, values).all())]
    assert [tuple(row) for row in await store.read(lambda conn: Listed(_FIND).rows(conn, values))] == expected
    assert len(expected) == count


async def test_of_pairs_both_halves_count(store: Store) -> None:
    mine, other, third = await stored(store, 3)
    owned = [(mine.id, AGENT), (other.id, AGENT + "/other"), (third.id, AGENT)]
    values = {"owned_": owned, "state_": TaskState.COMPLETED, "now_": NOW}
    ended = await store.write(lambda conn: Listed(_END).firsts(conn, values))
    assert sorted(ended) == [mine.id, third.id]
    found = await store.read(lambda conn: tasks.get(conn, third.id))
    assert found is not None
    assert (found.state, found.ended_at, found.purpose) == (TaskState.COMPLETED, NOW, "100% done")


async def test_the_order_of_values_does_not_count(store: Store) -> None:
    (task,) = await stored(store, 1)
    listed = Listed(_END)
    values = {"owned_": [(task.id, AGENT)], "state_": TaskState.COMPLETED, "now_": NOW}
    for given in (values, dict(reversed(values.items()))):
        assert await store.write(lambda conn, given=given: listed.firsts(conn, given)) == [task.id]  # type: ignore[misc]


async def test_lists_of_many_lengths_make_few_texts(store: Store) -> None:
    made = await stored(store, 9)
    listed = Listed(_FIND)
    with counting() as seen:
        for count in range(1, 10):
            ids = [task.id for task in made[:count]]
            assert await store.read(lambda conn, ids=ids: listed.firsts(conn, {"ids_": ids})) == ids  # type: ignore[misc]
    assert len(set(seen.sql)) == 5


async def test_an_empty_list_finds_nothing(store: Store) -> None:
    await stored(store, 1)
    assert await store.read(lambda conn: Listed(_FIND).rows(conn, {"ids_": []})) == []
