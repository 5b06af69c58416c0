import json
from datetime import timedelta

from credbroker.v1.revocation_pb2 import Revocation
from credbroker.v1.status_service_pb2 import (
    DatabaseStatus,
    GetStatusResponse,
    Replica,
    SingleWork,
    Standing,
    StatusProblem,
    VaultStatus,
)

from tests.contract.cli.conftest import Command
from tests.contract.cli.records import TASK_ID
from tests.fakes.operators import NOW, FakeBroker


def well() -> GetStatusResponse:
    reply = GetStatusResponse(
        replica="host-1",
        version="0.1.0",
        database=DatabaseStatus(kind="postgresql", migration="0002", newest_migration="0002"),
        vault=VaultStatus(ready=True, version="2.7.2"),
        standing=Standing(active_tasks=3, live_issuances=7, locks_in_force=1),
        replicas=[Replica(name="host-1", version="0.1.0"), Replica(name="host-2", version="0.1.0")],
        works=[SingleWork(name="reap", holder="host-1"), SingleWork(name="audit", holder="host-2")],
    )
    reply.time.FromDatetime(NOW)
    reply.vault.token_ttl.FromTimedelta(timedelta(minutes=30))
    reply.vault.clock_difference.FromTimedelta(timedelta(seconds=-7))
    for replica, silent in zip(reply.replicas, (5, 50), strict=True):
        replica.start_time.FromDatetime(NOW - timedelta(hours=3))
        replica.seen_time.FromDatetime(NOW - timedelta(seconds=silent))
    for work, left in zip(reply.works, (3, -60), strict=True):
        work.expire_time.FromDatetime(NOW + timedelta(seconds=left))
    return reply


def stuck() -> Revocation:
    made = Revocation(
        id="0190a5b2-4444-7000-8000-0000000000dd",
        task_id=TASK_ID,
        vault_accessor="accessor-1",
        vault_lease_id="database/creds/reader/abc",
        reason="task.completed",
        attempts=9,
        last_error="the engine cannot\x1b[2J be reached",
    )
    made.request_time.FromDatetime(NOW - timedelta(minutes=5))
    made.retry_time.FromDatetime(NOW + timedelta(seconds=30))
    return made


def test_all_is_well(broker: Command, fake: FakeBroker) -> None:
    fake.status = well()
    assert broker("status").stdout.splitlines() == [
        "all is well",
        "",
        "Broker",
        "  Answered by  host-1, version 0.1.0",
        "  At           2026-01-31 12:00:00Z",
        "  Database     postgresql, migration 0002",
        "  Vault        ready, version 2.7.2, the broker's token lives 30m more, its clock is 7s behind",
        "Under way",
        "  Active tasks               3",
        "  Live credentials           7",
        "  Pending revocations        0",
        "  Leases Vault gave up on    0",
        "  Ended tasks not confirmed  0",
        "  Locks in force             1",
        "Replicas",
        "  host-1  version 0.1.0, up 3h",
        "  host-2  version 0.1.0, up 3h, silent for 50s",
        "Done by one for all",
        "  reap   host-1",
        "  audit  nobody; until 2026-01-31 11:59:00Z: host-2",
    ]


def test_what_needs_a_person_comes_first_and_sets_the_exit_code(broker: Command, fake: FakeBroker) -> None:
    fake.status = well()
    fake.status.problems.add(reason="VAULT_NOT_READY", message="Vault cannot be used: it is sealed", advice="unseal it")
    fake.status.problems.extend([StatusProblem(reason="X", message="evil\x1b[2J", advice="wait")])
    fake.status.overdue_revocations.append(stuck())
    fake.status.standing.pending_revocations = 2
    fake.status.standing.failing_revocations = 1
    fake.status.standing.oldest_pending_time.FromDatetime(NOW - timedelta(minutes=5))
    fake.status.vault.Clear()
    fake.status.vault.problem = "it is sealed"
    lines = broker("status", expect=1).stdout.splitlines()
    assert lines[:5] == [
        "2 things need you",
        "  ! Vault cannot be used: it is sealed (VAULT_NOT_READY)",
        "    unseal it",
        "  ! evil\\x1b[2J (X)",
        "    wait",
    ]
    assert "  Vault        not ready" in lines
    assert any(
        line.split("  ")[-1].strip() == "2, 1 of them failed at least once, the longest for 5m" for line in lines
    )
    assert "9" in lines[-1]
    assert "the engine cannot\\x1b[2J" in lines[-1]


def test_programs_get_everything_and_the_same_exit_code(broker: Command, fake: FakeBroker) -> None:
    fake.status = well()
    assert json.loads(broker("status", "-o", "json").stdout)["standing"]["live_issuances"] == "7"
    fake.status.problems.add(reason="X", message="m", advice="a")
    found = json.loads(broker("status", "-o", "jsonl", expect=1).stdout)
    assert found["problems"] == [{"reason": "X", "message": "m", "advice": "a"}]


def test_what_is_not_confirmed_is_listed_with_what_vault_says(broker: Command, fake: FakeBroker) -> None:
    assert broker("revocations").stderr == "Vault has confirmed everything\n"
    fake.revocations = [stuck()]
    heading, line = broker("revocations").stdout.splitlines()
    assert heading.split() == ["SINCE", "(UTC)", "TASK", "ISSUANCE", "TRIED", "LAST", "ERROR"]
    assert "the engine cannot\\x1b[2J be" in line
    assert "database/creds/reader/abc" in broker("revocations", "--wide").stdout
    (found,) = json.loads(broker("revocations", "-o", "json").stdout)
    assert found["attempts"] == 9
