import json

from credbroker.v1.task_pb2 import Task

from tests.contract.cli.conftest import Command
from tests.contract.cli.records import AGENT, TASK_ID, task
from tests.fakes.operators import FakeBroker


def test_a_lock_says_what_it_ended(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(1), task(2), task(3, Task(agent="spiffe://example.test/agents/other"))]
    shown = broker("lock", "agent", AGENT, "--reason", "leaked key", "--ttl", "2h").stdout
    (lock,) = fake.locks
    assert shown.splitlines() == [
        f"locked agent {AGENT} ({lock.id})",
        "ended tasks: 2; credentials put up for revocation: 4",
        "Vault has confirmed that nothing of it is left",
    ]
    assert lock.reason == "leaked key"
    assert lock.expire_time.ToSeconds() - lock.create_time.ToSeconds() == 7200


def test_a_lock_says_what_is_pending_and_where_to_look(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(1), task(2)]
    fake.pending = 1
    shown = broker("lock", "agent", AGENT, "--reason", "x").stdout
    assert "Vault has confirmed 3, 1 pending: the broker keeps asking" in shown
    assert "`broker revocations`" in shown


def test_everything_that_can_be_held(broker: Command, fake: FakeBroker) -> None:
    for kind, target in (("task", TASK_ID), ("scope", "reports-db"), ("pattern", "spiffe://example.test/**")):
        broker("lock", kind, target, "--reason", "incident 7")
    held = [(lock.target.WhichOneof("target"), lock.HasField("expire_time")) for lock in reversed(fake.locks)]
    assert held == [("task_id", False), ("scope", False), ("agent_pattern", False)]
    lines = broker("locks").stdout.splitlines()
    assert "pattern spiffe://example.test/**" in lines[1]
    assert "when lifted" in lines[1]
    assert all(len(line) <= 80 for line in lines)


def test_locks_are_lifted_by_the_end_of_their_identifier(broker: Command, fake: FakeBroker) -> None:
    found = json.loads(broker("lock", "scope", "reports-db", "--reason", "x", "-o", "json").stdout)
    identifier = found["lock"]["id"]
    assert broker("unlock", identifier[-8:]).stdout == f"lifted {identifier}\n"
    assert fake.locks == []
    assert "there is no such lock in force (LOCK_NOT_FOUND)" in broker("unlock", identifier, expect=1).stderr
    assert broker("locks").stderr == "no lock is in force\n"
