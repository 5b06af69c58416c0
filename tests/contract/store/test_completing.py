"""Completing tasks, on every database: several share a transaction, and what is queued is claimed already."""

import asyncio
import threading
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import Connection

from broker.anchors import Anchors
from broker.audit import Call
from broker.audit.catalogue import CREDENTIAL_REVOCATION_REQUESTED, TASK_COMPLETED
from broker.errors import TaskNotFound
from broker.mint.vault import VaultClient
from broker.model import (
    AnchorRecord,
    Caller,
    EvidenceKind,
    Identity,
    IssuanceState,
    Page,
    Revocability,
    Task,
    TaskState,
)
from broker.outbox import FIRST_HOLD, Revoker
from broker.policy import PolicyCache
from broker.revoke import Hold
from broker.store import Store, anchors, events, issuances, revocations, tasks
from broker.tasks import Completion, Tasks, complete
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import AGENT, HOUR, NOW, a_task, an_anchor, an_event, an_issuance
from tests.fixtures.store import counting
from tests.fixtures.waiting import until

OTHER = "spiffe://example.org/b"
HELD = Hold("one", NOW + FIRST_HOLD)


class Obedient:
    """A Vault that revokes."""

    def __init__(self) -> None:
        self.revoked: list[str] = []

    async def revoke_token(self, accessor: str) -> bool:
        self.revoked.append(accessor)
        return True


def completion(task: Task, actor: str = AGENT) -> Completion:
    return Completion(task.id, an_event(type=TASK_COMPLETED, actor=actor, time=NOW), HELD)


async def a_task_that_holds_one(store: Store, agent: str = AGENT) -> tuple[Task, AnchorRecord]:
    task = a_task(agent=agent)
    anchor = an_anchor(task)
    issuance = an_issuance(anchor, agent=agent, state=IssuanceState.ACTIVE, revocability=Revocability.WITH_TASK)

    def insert(conn: Connection) -> None:
        tasks.insert(conn, task)
        anchors.insert(conn, anchor)
        issuances.insert(conn, issuance)

    await store.write(insert)
    return task, anchor


async def test_each_gets_what_is_its_own(store: Store) -> None:
    (one, _), (two, _), (theirs, _) = [await a_task_that_holds_one(store, agent) for agent in (AGENT, AGENT, OTHER)]
    empty = a_task()
    await store.write(lambda conn: tasks.insert(conn, empty))
    asked = [
        completion(theirs),
        completion(one),
        completion(theirs, OTHER),
        completion(one),
        completion(two, OTHER),
        completion(empty),
    ]

    done = await store.write(lambda conn: complete(conn, asked))

    assert [one and one.task.id for one in done] == [None, one.id, theirs.id, None, None, empty.id]
    assert [one and [entry.task_id for entry in one.entries] for one in done] == [
        None,
        [one.id],
        [theirs.id],
        None,
        None,
        [],
    ]
    assert done[-1] is not None
    assert done[-1].task == await store.read(lambda conn: tasks.get(conn, empty.id))
    assert done[-1].task.revocation_confirmed_at == NOW
    left = await store.read(lambda conn: tasks.get(conn, two.id))
    assert left is not None
    assert left.state is TaskState.ACTIVE
    recorded = (await store.read(lambda conn: events.page(conn, Page()))).items
    assert {(event.type, event.task_id, event.agent, event.actor) for event in recorded} == {
        (kind, task.id, task.agent, task.agent)
        for kind, task in (
            (TASK_COMPLETED, one),
            (CREDENTIAL_REVOCATION_REQUESTED, one),
            (TASK_COMPLETED, theirs),
            (CREDENTIAL_REVOCATION_REQUESTED, theirs),
            (TASK_COMPLETED, empty),
        )
    }


async def test_what_is_queued_is_claimed_until_its_replica_had_time(store: Store) -> None:
    task, _ = await a_task_that_holds_one(store)
    await store.write(lambda conn: complete(conn, [completion(task)]))

    def claim(conn: Connection, now_after: timedelta) -> list[tuple[str, int]]:
        taken = revocations.claim(conn, NOW + now_after, by="two", hold=HOUR, limit=9)
        return [(entry.claimed_by, entry.epoch) for entry in taken]

    assert await store.write(lambda conn: claim(conn, FIRST_HOLD - timedelta(seconds=1))) == []
    assert await store.write(lambda conn: claim(conn, FIRST_HOLD)) == [("two", 2)]


@pytest.mark.parametrize("many", [1, 16])
async def test_however_many_share_a_transaction_they_share_its_statements(store: Store, many: int) -> None:
    held = [await a_task_that_holds_one(store) for _ in range(many)]
    with counting() as seen:
        await store.write(lambda conn: complete(conn, [completion(task) for task, _ in held]))
    assert (len(seen.sql), seen.commits) == (5, 1)


class TestThroughTheWorkflow:
    @pytest.fixture
    def vault(self) -> Obedient:
        return Obedient()

    @pytest.fixture
    def revoker(self, store: Store, vault: Obedient, clock: FakeClock) -> Revoker:
        return Revoker(store, cast("VaultClient", vault), clock, "one")

    @pytest.fixture
    def workflow(self, store: Store, vault: Obedient, revoker: Revoker, clock: FakeClock) -> Tasks:
        kept = Anchors(store, cast("VaultClient", vault), clock, "one")
        return Tasks(store, cast("PolicyCache", None), kept, revoker, timedelta(seconds=5))

    @pytest.fixture
    def call(self, clock: FakeClock) -> Call:
        identity = Identity(AGENT, EvidenceKind.OIDC, "issuer", "subject", {}, "digest", clock.now() + HOUR)
        return Call("m", "p", clock.now(), Caller(identity, frozenset()))

    async def test_two_transactions_and_one_call_end_a_task(
        self, store: Store, workflow: Tasks, vault: Obedient, call: Call
    ) -> None:
        task, anchor = await a_task_that_holds_one(store)
        with counting() as seen:
            completed = await workflow.complete(call, task.id)
        assert completed == await store.read(lambda conn: tasks.get(conn, task.id))
        assert completed.revocation_confirmed_at is not None
        assert vault.revoked == [anchor.accessor]
        assert seen.commits == 2

    async def test_another_agents_task_is_not_found(self, store: Store, workflow: Tasks, call: Call) -> None:
        task, _ = await a_task_that_holds_one(store, OTHER)
        with pytest.raises(TaskNotFound):
            await workflow.complete(call, task.id)

    async def test_what_a_caller_left_is_revoked_all_the_same(
        self, store: Store, workflow: Tasks, revoker: Revoker, vault: Obedient, call: Call
    ) -> None:
        task, anchor = await a_task_that_holds_one(store)
        busy, go_on = threading.Event(), threading.Event()

        def stall(_: Connection) -> None:
            busy.set()
            go_on.wait(10)

        stalled = asyncio.create_task(store.write(stall))
        await until(busy.is_set)
        completing = asyncio.create_task(workflow.complete(call, task.id))
        await until(lambda: store.writes_waiting == 1)
        completing.cancel()
        await asyncio.wait([completing])
        go_on.set()
        await stalled

        async def confirmed() -> bool:
            found = await store.read(lambda conn: tasks.get(conn, task.id))
            return found is not None and found.revocation_confirmed_at is not None

        await until(confirmed, seconds=5)
        assert vault.revoked == [anchor.accessor]
        await revoker.stop()
