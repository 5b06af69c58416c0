"""Tasks, on every database."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from broker.errors import InvalidArgument
from broker.ids import new_id
from broker.model import AnchorState, IssuanceState, Page, Revocability, Task, TaskState
from broker.store import Store, anchors, issuances, revocations, tasks
from tests.fixtures.records import AGENT, HOUR, NOW, a_revocation, a_task, active_tasks, an_anchor, an_issuance

SECOND = timedelta(seconds=1)
AN_ID = "019a0000-0000-7abc-8000-00000000000a"


async def stored(store: Store, task: Task) -> Task:
    await store.write(lambda conn: tasks.insert(conn, task))
    return task


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": {}, "declared_scopes": ()},
        {"heartbeat_interval": timedelta(milliseconds=1500), "heartbeat_at": NOW},
        {"request_id": new_id(), "purpose": "ünïcödé \r\n\x1b[31m 🦊 ' \" \\ %s :x"},
        {"state": TaskState.LOCKED, "ended_at": NOW + SECOND, "revocation_confirmed_at": NOW + 2 * SECOND},
        {"created_at": NOW + timedelta(microseconds=1)},
    ],
)
async def test_a_task_comes_back_as_it_was_stored(store: Store, changes: dict[str, object]) -> None:
    task = await stored(store, a_task(**changes))
    assert await store.read(lambda conn: tasks.get(conn, task.id)) == task


async def test_an_unknown_task_is_none(store: Store) -> None:
    unknown = new_id()
    assert await store.read(lambda conn: tasks.get(conn, unknown)) is None
    assert await store.write(lambda conn: tasks.pin_active(conn, [unknown])) == set()
    assert await store.write(lambda conn: tasks.heartbeat(conn, unknown, NOW)) is None
    assert await store.write(lambda conn: tasks.end(conn, [unknown], TaskState.COMPLETED, NOW)) == []
    assert await store.write(lambda conn: tasks.confirm_revoked(conn, [unknown], NOW)) == []


@pytest.mark.parametrize("text", ["", "x", "0" * 32, f"{{{AN_ID}}}", AN_ID.upper(), AN_ID + "\n", AN_ID + "0"])
async def test_what_is_no_identifier_is_refused_alike(store: Store, text: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.read(lambda conn: tasks.get(conn, text))


@pytest.mark.parametrize("text", ["nul \x00", "half \ud800"])
async def test_text_that_a_database_cannot_hold_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.write(lambda conn: tasks.insert(conn, a_task(purpose=text)))


async def test_an_agent_too_long_for_an_index_is_refused(store: Store) -> None:
    await stored(store, a_task(agent="é" * 1024))
    with pytest.raises(InvalidArgument):
        await store.write(lambda conn: tasks.insert(conn, a_task(agent="é" * 1025)))


async def test_a_request_finds_its_own_agents_task(store: Store) -> None:
    request = new_id()
    task = await stored(store, a_task(request_id=request))
    await stored(store, a_task(agent=AGENT + "/other", request_id=request))
    assert await store.read(lambda conn: tasks.by_request(conn, AGENT, request)) == task
    assert await store.read(lambda conn: tasks.by_request(conn, AGENT, new_id())) is None
    assert await store.read(lambda conn: tasks.by_request(conn, AGENT + "/third", request)) is None


async def test_a_heartbeat_puts_the_end_off_but_never_past_the_deadline(store: Store) -> None:
    task = await stored(store, a_task(heartbeat_interval=10 * SECOND, heartbeat_at=NOW))
    due = await store.read(lambda conn: tasks.due(conn, NOW + 10 * SECOND, 10))
    assert due == [task]

    beaten = await store.write(lambda conn: tasks.heartbeat(conn, task.id, NOW + 5 * SECOND))
    assert beaten == replace(task, heartbeat_at=NOW + 5 * SECOND)
    assert await store.read(lambda conn: tasks.due(conn, NOW + 15 * SECOND - timedelta(microseconds=1), 10)) == []
    assert await store.read(lambda conn: tasks.due(conn, NOW + 15 * SECOND, 10)) == [beaten]

    await store.write(lambda conn: tasks.heartbeat(conn, task.id, task.deadline - SECOND))
    assert await store.read(lambda conn: tasks.due(conn, task.deadline - timedelta(microseconds=1), 10)) == []
    assert len(await store.read(lambda conn: tasks.due(conn, task.deadline, 10))) == 1


async def test_a_heartbeat_that_nobody_needs_changes_nothing(store: Store) -> None:
    task = await stored(store, a_task())
    assert await store.write(lambda conn: tasks.heartbeat(conn, task.id, NOW + SECOND)) == task
    assert await store.read(lambda conn: tasks.due(conn, task.deadline - SECOND, 10)) == []
    assert await store.read(lambda conn: tasks.due(conn, task.deadline, 10)) == [task]


async def test_a_task_ends_once(store: Store) -> None:
    task = await stored(store, a_task(heartbeat_interval=SECOND, heartbeat_at=NOW))
    ended = await store.write(lambda conn: tasks.end(conn, [task.id], TaskState.HEARTBEAT_MISSED, NOW + SECOND))
    assert ended == [replace(task, state=TaskState.HEARTBEAT_MISSED, ended_at=NOW + SECOND)]
    assert await store.write(lambda conn: tasks.end(conn, [task.id], TaskState.COMPLETED, NOW + HOUR)) == []
    assert await store.write(lambda conn: tasks.heartbeat(conn, task.id, NOW + SECOND)) is None
    assert await store.read(lambda conn: tasks.get(conn, task.id)) == ended[0]
    assert await store.read(lambda conn: tasks.due(conn, NOW + HOUR, 10)) == []


async def test_due_tasks_come_longest_due_first_and_bounded(store: Store) -> None:
    late, later, latest = [await stored(store, a_task(deadline=NOW + n * SECOND)) for n in (1, 2, 3)]
    assert await store.read(lambda conn: tasks.due(conn, NOW + HOUR, 2)) == [late, later]
    assert await store.read(lambda conn: tasks.due(conn, NOW + 2 * SECOND, 10)) == [late, later]
    assert latest in await store.read(lambda conn: tasks.due(conn, NOW + HOUR, 10))


async def test_an_agent_ends_its_own_tasks_only(store: Store) -> None:
    mine, another, theirs = [await stored(store, a_task(agent=agent)) for agent in (AGENT, AGENT, "spiffe://o.org/b")]
    over = await stored(store, a_task(state=TaskState.LOCKED, ended_at=NOW))
    asked = [(mine.id, AGENT), (theirs.id, AGENT), (another.id, theirs.agent), (over.id, AGENT), (new_id(), AGENT)]
    ended = await store.write(lambda conn: tasks.end_own(conn, asked, TaskState.COMPLETED, NOW + SECOND))
    assert ended == [replace(mine, state=TaskState.COMPLETED, ended_at=NOW + SECOND)]
    assert await store.read(active_tasks) == [another, theirs]


async def test_active_tasks_of_one_agent_or_all(store: Store) -> None:
    first, second = await stored(store, a_task()), await stored(store, a_task(agent="spiffe://example.org/b"))
    ended = await stored(store, a_task())
    await store.write(lambda conn: tasks.end(conn, [ended.id], TaskState.COMPLETED, NOW))
    assert await store.read(active_tasks) == [first, second]
    assert await store.read(lambda conn: tasks.active_after(conn, str(UUID(int=0)), 9, agent=AGENT)) == [first]


class TestConfirmRevoked:
    async def confirmed(self, store: Store, task: Task) -> bool:
        return bool(await store.write(lambda conn: tasks.confirm_revoked(conn, [task.id], NOW + HOUR)))

    async def ended(self, store: Store) -> Task:
        return await stored(store, a_task(state=TaskState.COMPLETED, ended_at=NOW))

    async def test_only_once_and_with_its_time(self, store: Store) -> None:
        task = await self.ended(store)
        assert await self.confirmed(store, task)
        assert not await self.confirmed(store, task)
        found = await store.read(lambda conn: tasks.get(conn, task.id))
        assert found == replace(task, revocation_confirmed_at=NOW + HOUR)

    async def test_not_while_the_task_is_active(self, store: Store) -> None:
        assert not await self.confirmed(store, await stored(store, a_task()))

    async def test_not_while_a_revocation_is_unconfirmed(self, store: Store) -> None:
        task, other = await self.ended(store), await self.ended(store)
        revocation = a_revocation(task)
        await store.write(lambda conn: revocations.insert_all(conn, [revocation]))
        assert not await self.confirmed(store, task)
        assert await self.confirmed(store, other)
        await store.write(lambda conn: revocations.confirm(conn, [revocation], NOW))
        assert await self.confirmed(store, task)

    @pytest.mark.parametrize("state", list(AnchorState))
    async def test_not_while_an_anchor_may_live(self, store: Store, state: AnchorState) -> None:
        task = await self.ended(store)
        await store.write(lambda conn: anchors.insert(conn, an_anchor(task, state=state)))
        assert await self.confirmed(store, task) is (state is AnchorState.GONE)

    @pytest.mark.parametrize("state", list(IssuanceState))
    @pytest.mark.parametrize("revocability", list(Revocability))
    async def test_not_while_a_credential_may_live(
        self, store: Store, state: IssuanceState, revocability: Revocability
    ) -> None:
        task = await self.ended(store)
        anchor = an_anchor(task, state=AnchorState.GONE)
        issuance = an_issuance(anchor, state=state, revocability=revocability)
        await store.write(lambda conn: anchors.insert(conn, anchor))
        await store.write(lambda conn: issuances.insert(conn, issuance))
        over = state in (IssuanceState.REVOKED, IssuanceState.EXPIRED, IssuanceState.FAILED)
        can_only_expire = state is IssuanceState.ACTIVE and revocability is Revocability.AT_EXPIRY
        assert await self.confirmed(store, task) is (over or can_only_expire)


async def test_agents_see_their_own_tasks_newest_first(store: Store) -> None:
    mine = [await stored(store, a_task()) for _ in range(3)]
    other = await stored(store, a_task(agent="spiffe://example.org/b"))
    found = await store.read(lambda conn: tasks.page(conn, Page(), AGENT))
    assert found.items == mine[::-1]
    assert (await store.read(lambda conn: tasks.page(conn, Page(), None))).items == [other, *mine[::-1]]
