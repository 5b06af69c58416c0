"""Statements that go to the driver as they are: the same values and errors as through SQLAlchemy."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, bindparam, insert, select, tuple_, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from broker.errors import InvalidArgument, StoreUnavailable
from broker.ids import new_id
from broker.model import AnchorRecord, Task, TaskState
from broker.secret import Secret
from broker.store import Store, schema, tasks
from broker.store.failures import Conflict
from broker.store.statement import Statement, fetch, run
from tests.fixtures.records import AGENT, NOW, a_task
from tests.fixtures.store import counting, running

_tasks = schema.tasks
_LISTED = select(_tasks.c.id, _tasks.c.state, _tasks.c.labels, _tasks.c.deadline, _tasks.c.heartbeat_interval).where(
    _tasks.c.id.in_(bindparam("ids_", expanding=True))
)
_FIND = (
    select(_tasks.c.id, _tasks.c.labels, _tasks.c.declared_scopes, _tasks.c.state, _tasks.c.deadline)
    .where(_tasks.c.id.in_(bindparam("ids_", expanding=True)), _tasks.c.state == TaskState.ACTIVE)
    .order_by(_tasks.c.id)
)
_END = (
    update(_tasks)
    .where(tuple_(_tasks.c.id, _tasks.c.agent).in_(bindparam("owned_", expanding=True)))
    .values(state=bindparam("state_"), ended_at=bindparam("now_"), purpose="100% done")
    .returning(_tasks.c.id)
)


async def test_values_come_back_as_sqlalchemy_gives_them(store: Store, task: Task) -> None:
    other = a_task(labels={"a": "ü"}, heartbeat_interval=timedelta(seconds=7))
    await store.write(lambda conn: tasks.insert(conn, other))
    values = {"ids_": [task.id, other.id]}
    statement = Statement(_LISTED)

    for _ in range(2):
        seen = await store.read(lambda conn: statement.rows(conn, values))
        expected = await store.read(lambda conn: conn.execute(_LISTED, values).all())
        assert sorted(map(tuple, seen)) == sorted(map(tuple, expected))
    assert {row[1] for row in seen} == {TaskState.ACTIVE}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 500])
async def test_lists_of_any_length(store: Store, task: Task, length: int) -> None:
    statement = Statement(_LISTED)
    ids = [new_id() for _ in range(length)]

    assert await store.read(lambda conn: statement.rows(conn, {"ids_": ids})) == []
    found = await store.read(lambda conn: statement.rows(conn, {"ids_": [*ids, task.id]}))
    assert [row[0] for row in found] == [task.id]


async def test_lists_of_pairs(store: Store, task: Task, anchor: AnchorRecord) -> None:
    pair = tuple_(schema.anchors.c.id, schema.anchors.c.task_id)
    statement = Statement(select(schema.anchors.c.id).where(pair.in_(bindparam("pairs_", expanding=True))))

    async def found(*pairs: tuple[str, str]) -> list[str]:
        return [row[0] for row in await store.read(lambda conn: statement.rows(conn, {"pairs_": list(pairs)}))]

    assert await found((anchor.id, task.id)) == [anchor.id]
    assert await found((new_id(), task.id), (anchor.id, task.id)) == [anchor.id]
    assert await found((anchor.id, new_id()), (task.id, anchor.id)) == []


async def test_a_change_says_how_many_rows_it_changed(store: Store, task: Task) -> None:
    ending = Statement(
        update(_tasks)
        .where(_tasks.c.id == bindparam("id_"))
        .values(state=TaskState.COMPLETED, ended_at=bindparam("now_"))
    )

    assert await store.write(lambda conn: ending.run(conn, {"id_": new_id(), "now_": NOW})) == 0
    assert await store.write(lambda conn: ending.run(conn, {"id_": task.id, "now_": NOW})) == 1
    ended = await store.read(lambda conn: tasks.get(conn, task.id))
    assert ended is not None
    assert (ended.state, ended.ended_at) == (TaskState.COMPLETED, NOW)


async def test_what_cannot_be_stored_is_refused_before(store: Store) -> None:
    statement = Statement(_LISTED)
    with pytest.raises(InvalidArgument):
        await store.read(lambda conn: statement.rows(conn, {"ids_": ["no identifier"]}))


async def test_errors_are_sqlalchemys_and_show_no_values(store: Store, task: Task) -> None:
    adding = Statement(insert(_tasks).values(id=bindparam("id_"), purpose=bindparam("purpose_")))
    seen: list[DBAPIError] = []

    def work(conn: Connection) -> None:
        try:
            adding.run(conn, {"id_": task.id, "purpose_": "only-for-me"})
        except DBAPIError as error:
            seen.append(error)
            raise

    with pytest.raises(Conflict):
        await store.write(work)
    assert {type(error) for error in seen} == {IntegrityError}
    assert all(error.params is None and error.hide_parameters for error in seen)


async def test_a_statement_that_makes_no_sense(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        await store.read(lambda conn: fetch(conn, "SELECT nothing FROM nowhere", ()))
    with pytest.raises(StoreUnavailable):
        await store.write(lambda conn: run(conn, "SELECT nothing FROM nowhere", ()))


async def test_a_lost_connection_is_given_up(postgres_url: Secret[str]) -> None:
    pids: list[int] = []

    def work(conn: Connection) -> None:
        pids.append(fetch(conn, "SELECT pg_backend_pid()", ())[0][0])
        if len(pids) == 1:
            run(conn, "SELECT pg_terminate_backend(pg_backend_pid())", ())

    async with running(postgres_url) as store:
        await store.read(work)
    assert len(set(pids)) == 2


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
    assert [tuple(row) for row in await store.read(lambda conn: Statement(_FIND).rows(conn, values))] == expected
    assert len(expected) == count


async def test_of_pairs_both_halves_count(store: Store) -> None:
    mine, other, third = await stored(store, 3)
    owned = [(mine.id, AGENT), (other.id, AGENT + "/other"), (third.id, AGENT)]
    values = {"owned_": owned, "state_": TaskState.COMPLETED, "now_": NOW}
    ended = await store.write(lambda conn: Statement(_END).firsts(conn, values))
    assert sorted(ended) == [mine.id, third.id]
    found = await store.read(lambda conn: tasks.get(conn, third.id))
    assert found is not None
    assert (found.state, found.ended_at, found.purpose) == (TaskState.COMPLETED, NOW, "100% done")


async def test_the_order_of_values_does_not_count(store: Store) -> None:
    (task,) = await stored(store, 1)
    statement = Statement(_END)
    values = {"owned_": [(task.id, AGENT)], "state_": TaskState.COMPLETED, "now_": NOW}
    for given in (values, dict(reversed(values.items()))):
        assert await store.write(lambda conn, given=given: statement.firsts(conn, given)) == [task.id]  # type: ignore[misc]


async def test_lists_of_many_lengths_make_few_texts(store: Store) -> None:
    made = await stored(store, 9)
    statement = Statement(_FIND)
    with counting() as seen:
        for count in range(1, 10):
            ids = [task.id for task in made[:count]]
            assert await store.read(lambda conn, ids=ids: statement.firsts(conn, {"ids_": ids})) == ids  # type: ignore[misc]
    assert len(set(seen.sql)) == 5


async def test_an_empty_list_finds_nothing(store: Store) -> None:
    await stored(store, 1)
    assert await store.read(lambda conn: Statement(_FIND).rows(conn, {"ids_": []})) == []
