import json

import pytest
from credbroker.v1.audit_event_pb2 import AuditEvent
from credbroker.v1.issuance_pb2 import Issuance
from credbroker.v1.task_pb2 import TASK_STATE_ACTIVE, Task

from tests.contract.cli.conftest import Command
from tests.contract.cli.records import AGENT, ISSUANCE_ID, TASK_ID, event, issuance, life, task
from tests.fakes.operators import FakeBroker


def test_a_table_of_tasks_fits_80_columns(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(1, Task(state=TASK_STATE_ACTIVE)), task(2, Task(purpose="a purpose " * 20))]
    lines = broker("tasks", "list").stdout.splitlines()
    assert lines[0].split() == ["TASK", "STARTED", "(UTC)", "STATE", "AGENT", "PURPOSE"]
    assert lines[1].split()[:4] == ["…00000001", "01-31", "12:00:00", "active"]
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) == 3


def test_wide_tables_show_everything(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task()]
    shown = broker("tasks", "list", "--wide").stdout
    for value in (TASK_ID, AGENT, "the quarterly report", "2026-01-31 13:00:00Z", "confirmed"):
        assert value in shown


def test_programs_get_every_field_under_its_own_name(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task()]
    (found,) = json.loads(broker("tasks", "list", "-o", "json").stdout)
    assert found["id"] == TASK_ID
    assert found["declared_scopes"] == ["reports-db"]
    assert found["state"] == "TASK_STATE_COMPLETED"
    assert found["create_time"] == "2026-01-31T12:00:00.250Z"
    assert found["heartbeat_interval"] == "30s"
    (issued,) = [json.loads(line) for line in _issuances(broker, fake)]
    assert issued["vault_lease_id"] == "database/creds/reader/abc"
    assert "renew_time" not in issued
    assert issued["scope_version"] == "3"


def _issuances(broker: Command, fake: FakeBroker) -> list[str]:
    fake.issuances = [issuance()]
    return broker("issuances", "list", "--output", "jsonl").stdout.splitlines()


@pytest.mark.parametrize(("output", "expected"), [("json", "[]\n"), ("jsonl", ""), ("table", "")])
def test_an_empty_list_is_no_failure(output: str, expected: str, broker: Command) -> None:
    result = broker("audit", "events", "--output", output)
    assert result.stdout == expected
    assert result.stderr == ("no event matches\n" if output == "table" else "")


def test_lists_follow_pages_up_to_their_limit(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(number) for number in range(1, 8)]
    fake.page_size = 3
    assert len(json.loads(broker("tasks", "list", "--limit", "0", "-o", "json").stdout)) == 7
    cut = broker("tasks", "list", "--limit", "5", "-o", "jsonl")
    assert len(cut.stdout.splitlines()) == 5
    assert "only the first 5 are shown" in cut.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tasks", "list"], ""),
        (["tasks", "list", "--agent", AGENT, "--state", "active"], f'agent = "{AGENT}" AND state = "ACTIVE"'),
        (
            ["tasks", "list", "--since", "2026-01-01T00:00:00+01:00", "--until", "2026-02-01"],
            'create_time >= "2025-12-31T23:00:00Z" AND create_time < "2026-02-01T00:00:00Z"',
        ),
        (
            ["issuances", "list", "--scope", "reports-db", "--task", TASK_ID, "--filter", "scope_version = 3"],
            f'task_id = "{TASK_ID}" AND scope = "reports-db" AND scope_version = 3',
        ),
        (
            ["audit", "events", "--type", "request.refused", "--outcome", "denied", "--issuance", ISSUANCE_ID],
            f'issuance_id = "{ISSUANCE_ID}" AND type = "request.refused" AND outcome = "DENIED"',
        ),
        (["audit", "events", "--agent", 'a" OR b'], r'agent = "a\" OR b"'),
    ],
)
def test_options_become_one_filter(words: list[str], expected: str, broker: Command, fake: FakeBroker) -> None:
    broker(*words)
    assert fake.filters == [expected]


def test_one_task(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(1), task()]
    shown = broker("tasks", "show", "000000aa").stdout
    assert shown == broker("tasks", "show", TASK_ID).stdout
    assert f"Task {TASK_ID}" in shown
    assert "Labels      env=prod, team=data" in shown
    assert "Revocation  confirmed, at 2026-01-31 12:00:03Z" in shown
    assert "Heartbeat   every 30s, last at 2026-01-31 12:00:00Z" in shown
    assert json.loads(broker("tasks", "show", TASK_ID, "-o", "json").stdout)["id"] == TASK_ID


def test_the_life_of_an_issuance(broker: Command, fake: FakeBroker) -> None:
    fake.issuances, fake.events = [issuance()], life()
    shown = broker("issuances", "show", "…000000bb").stdout
    assert "Scope         reports-db version 3 (leased)" in shown
    assert "Parameters    role=reader rows=5" in shown
    assert "Expires       2026-01-31 12:15:00Z, at the latest 2026-01-31 13:00:00Z after renewals" in shown
    assert "Revocation    confirmed, asked for 2026-01-31 12:00:02Z" in shown
    assert shown.partition("Timeline\n")[2].splitlines() == [
        "  2026-01-31 (UTC)",
        "  12:00:00.250  ✓ task.started",
        "  12:00:01.250  ✓ credential.issued  reports-db version 3",
        "                  ttl_seconds=900",
        "  12:00:01.750  ✗ request.refused  payments-admin",
        r"                  SCOPE_DENIED: spec.who: nobody of these\x1b[2J",
        "  12:00:02.250  ✓ task.completed",
        "  12:00:03.250  ✓ credential.revoked  reports-db version 3, by broker",
    ]


def test_programs_get_the_issuance_with_its_events(broker: Command, fake: FakeBroker) -> None:
    fake.issuances, fake.events = [issuance()], life()
    found = json.loads(broker("issuances", "show", ISSUANCE_ID, "-o", "json").stdout)
    assert found["issuance"]["id"] == ISSUANCE_ID
    assert [item["type"] for item in found["events"]][-1] == "credential.revoked"


def test_what_agents_write_cannot_move_the_cursor(broker: Command, fake: FakeBroker) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07[red]x[/red]\nsecond line \u202e :smile:"
    hostile_event = event("task.started", changes=AuditEvent(detail=hostile, reason=hostile))
    fake.tasks = [task(changes=Task(purpose=hostile, labels={"a\x1b": "b\r"}))]
    fake.issuances, fake.events = [issuance(changes=Issuance(agent=hostile))], [hostile_event]
    commands = (
        ("tasks", "list", "--wide"),
        ("tasks", "list", "-o", "json"),
        ("tasks", "show", TASK_ID),
        ("issuances", "list"),
        ("issuances", "show", ISSUANCE_ID),
        ("audit", "events", "--wide"),
        ("audit", "events", "-o", "jsonl"),
    )
    for words in commands:
        shown = broker(*words).stdout
        assert all(char == "\n" or char.isprintable() for char in shown), words
    assert r"\x1b[2J\x1b]0;title\x07[red]x[/red]\nsecond line \u202e :smile:" in broker("tasks", "show", TASK_ID).stdout


def test_events_show_what_went_wrong_with_what(broker: Command, fake: FakeBroker) -> None:
    fake.events = life()
    broker.environ["COLUMNS"] = "100"
    lines = broker("audit", "events").stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        "✓ task.started        …/agents/reports  -",
        "✓ credential.issued   …/agents/reports  reports-db",
        "✗ request.refused     …/agents/reports  SCOPE_DENIED payments-admin",
        "✓ task.completed      …/agents/reports  -",
        "✓ credential.revoked  broker            reports-db",
    ]
    heading = broker("audit", "events", "--wide").stdout.splitlines()[0]
    assert heading.split()[2:] == ["EVENT", "ACTOR", "OUTCOME", "REASON", "SCOPE", "TASK", "ISSUANCE", "DETAIL"]
