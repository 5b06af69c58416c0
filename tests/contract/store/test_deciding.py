"""Deciding on what is known, and asking the database in doubt, on every database."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from broker.audit import Call
from broker.authorize import compile_scope
from broker.deciding import KNOWN_FOR, Deciding, Errand, IssueRequest
from broker.document import parse_document
from broker.errors import Locked, RequestIdReused, ScopeDenied, TaskEnded, TaskNotFound
from broker.ids import new_id
from broker.mint import MAPPINGS
from broker.model import AnchorRecord, Caller, EvidenceKind, Identity, Task, TaskSpec, TaskState
from broker.policy import PolicyCache
from broker.record import Decided
from broker.step import Step, observe
from broker.store import Store, issuances, locks, policy, scopes, tasks
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import AGENT, HOUR, NOW, a_lock, a_scope, a_task, an_issuance

IDENTITY = Identity(AGENT, EvidenceKind.JWT_SVID, "spiffe://example.org", AGENT, {}, "e" * 64, NOW)
NEW_TASK = TaskSpec(purpose="new", labels={}, declared_scopes=(), timeout=HOUR, heartbeat_interval=None)
DOCUMENT = """
apiVersion: credbroker.dev/v1
kind: Scope
metadata: {{name: {name}}}
spec:
  who: [{{spiffeId: "{agent}"}}]
  credential: {{kind: vault_token, rules: [{{path: secret/data/x, capabilities: [read]}}]}}
  ttl: {{default: 5m, max: 10m}}
  limits: {limits}
"""


@dataclass
class Decisions:
    """Decisions about one scope, and how often the database was asked for them."""

    store: Store
    deciding: Deciding
    task: Task
    asked: int = 0

    async def decide(self, scope: str = "db-read", request_id: str | None = None, task_id: str = "") -> Decided:
        return await self.of(self.errand(scope, request_id, task_id or self.task.id))

    def errand(self, scope: str = "db-read", request_id: str | None = None, task: str | TaskSpec = "") -> Errand:
        call = Call("m", "p", NOW, Caller(IDENTITY, frozenset()))
        return Errand(call, IssueRequest(request_id, task or self.task.id, scope, {}, None))

    async def of(self, errand: Errand) -> Decided:
        decided = await self.deciding.decide(errand)
        self.deciding.recorded(decided)
        return decided

    async def add_scope(self, name: str, limits: str = "{}", agent: str = AGENT, version: int = 1) -> None:
        document = DOCUMENT.format(name=name, agent=agent, limits=limits)
        record = a_scope(name, document=document, version=version)
        await self.store.write(lambda conn: scopes.insert(conn, record))
        await self.store.write(policy.raise_revision)


@pytest.fixture
async def known(store: Store, clock: FakeClock) -> AsyncIterator[Decisions]:
    """A scope and a task about which a decision was made just now."""
    task = a_task(declared_scopes=())
    await store.write(lambda conn: tasks.insert(conn, task))
    rules = PolicyCache(lambda record: compile_scope(record, parse_document(record.document, MAPPINGS)))
    decisions = Decisions(store, Deciding(store, rules, clock), task)
    await decisions.add_scope("db-read")

    def count(step: Step) -> nullcontext[None]:
        decisions.asked += step is Step.ISSUE_LOOK_UP
        return nullcontext()

    end = observe(count)
    await decisions.decide()
    assert decisions.asked == 1
    yield decisions
    end()


async def test_a_further_decision_does_not_ask_the_database(known: Decisions) -> None:
    decided = await known.decide(request_id=new_id())
    assert known.asked == 1
    assert (decided.task, decided.begins, decided.grant.scope) == (known.task, False, "db-read")


async def test_neither_does_one_that_starts_a_task(known: Decisions) -> None:
    decided = await known.of(known.errand(task=NEW_TASK, request_id=new_id()))
    assert (known.asked, decided.begins, decided.task.purpose) == (1, True, "new")


async def test_what_was_last_seen_a_while_ago_is_not_known(known: Decisions, clock: FakeClock) -> None:
    clock.advance(KNOWN_FOR)
    await known.decide()
    clock.advance(KNOWN_FOR)
    await known.decide()
    assert known.asked == 1  # each record has seen the rules in force
    clock.advance(KNOWN_FOR + timedelta(milliseconds=1))
    await known.decide()
    assert known.asked == 2


async def test_another_task_is_not_known(known: Decisions) -> None:
    with pytest.raises(TaskNotFound):
        await known.decide(task_id=new_id())
    assert known.asked == 2


async def test_a_forgotten_task_is_asked_for(known: Decisions) -> None:
    await known.store.write(lambda conn: tasks.end(conn, [known.task.id], TaskState.COMPLETED, NOW))
    known.deciding.forget_task(known.task.id)
    with pytest.raises(TaskEnded):
        await known.decide()


async def test_a_task_with_heartbeats_is_always_asked_for(known: Decisions) -> None:
    beating = a_task(declared_scopes=(), heartbeat_interval=timedelta(seconds=30), heartbeat_at=NOW)
    await known.store.write(lambda conn: tasks.insert(conn, beating))
    for asked in (2, 3):
        await known.decide(task_id=beating.id)
        assert known.asked == asked


async def test_a_second_attempt_asks_the_database(known: Decisions) -> None:
    errand = known.errand()
    await known.of(errand)
    await known.of(errand)
    assert known.asked == 2


async def test_what_is_refused_by_what_is_known_is_asked_again(known: Decisions) -> None:
    await known.add_scope("brand-new")
    assert (await known.decide("brand-new")).grant.scope == "brand-new"
    assert known.asked == 2
    with pytest.raises(ScopeDenied):
        await known.decide("no-such-scope")
    assert known.asked == 3


async def test_a_lock_that_was_lifted_elsewhere_holds_nobody(known: Decisions) -> None:
    lock = a_lock()
    await known.store.write(lambda conn: locks.insert(conn, lock))
    await known.store.write(policy.raise_revision)
    known.deciding.forget_task(known.task.id)
    with pytest.raises(Locked):
        await known.decide()
    await known.store.write(lambda conn: locks.lift(conn, lock.id, "admin", NOW))
    await known.store.write(policy.raise_revision)
    assert (await known.decide()).grant.scope == "db-read"


async def test_a_request_id_that_was_seen_before_is_looked_up(known: Decisions, anchor: AnchorRecord) -> None:
    request = new_id()
    await known.decide(request_id=request)
    granted = an_issuance(anchor, request_id=request)
    await known.store.write(lambda conn: issuances.insert(conn, granted))
    with pytest.raises(RequestIdReused) as refusal:
        await known.decide(request_id=request)
    assert refusal.value.metadata["issuance_id"] == granted.id


async def test_a_task_that_a_lost_attempt_started_is_found_by_its_request(known: Decisions) -> None:
    request = new_id()
    started = a_task(declared_scopes=(), request_id=request)
    errand = known.errand(task=NEW_TASK, request_id=request)
    errand.tried = True
    await known.store.write(lambda conn: tasks.insert(conn, started))
    assert (await known.of(errand)).task == started
    errand = replace(errand, begun=started, request=replace(errand.request, request_id=None), tried=True)
    assert (await known.of(errand)).task == started


async def test_limits_are_counted_before_vault_is_asked(known: Decisions, anchor: AnchorRecord) -> None:
    await known.add_scope("few", limits="{livePerScope: 1}")
    await known.decide("few")
    await known.store.write(lambda conn: issuances.insert(conn, an_issuance(anchor, scope="few")))
    with pytest.raises(Exception, match="livePerScope"):
        await known.decide("few")


async def test_what_is_remembered_is_bounded(known: Decisions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.deciding.MOST_KNOWN", 2)
    others = [a_task(declared_scopes=()) for _ in range(2)]
    for task in others:
        await known.store.write(lambda conn, task=task: tasks.insert(conn, task))  # type: ignore[misc]
        await known.decide(task_id=task.id)
    assert known.asked == 3
    await known.decide(task_id=others[0].id)
    assert known.asked == 3
    await known.decide()
    assert known.asked == 4
