import json
from datetime import timedelta

import pytest
from credbroker.v1.revocation_pb2 import RevocationSelector, ScopeSelector
from credbroker.v1.revocation_service_pb2 import RevokeIssuancesResponse

from tests.contract.cli.conftest import Command
from tests.contract.cli.records import AGENT, ISSUANCE_ID, TASK_ID, task
from tests.fakes.operators import NOW, FakeBroker

ORDER = "0190a5b2-5555-7000-8000-0000000000ee"
WHY = ("--reason", "too wide")


@pytest.fixture(autouse=True)
def _out(fake: FakeBroker) -> None:
    """Something is out."""
    fake.taken_back = RevokeIssuancesResponse(
        id=ORDER,
        revoked_issuances=3,
        sibling_issuances=1,
        expiring_issuances=1,
        earlier_issuances=2,
        confirmed_issuances=3,
        pending_issuances=1,
    )
    fake.taken_back.last_expire_time.FromDatetime(NOW + timedelta(minutes=5))


def test_what_would_go_is_shown_before_anything_does(broker: Command, fake: FakeBroker) -> None:
    result = broker("revoke", "--agent", AGENT, *WHY, answer="y\n")
    assert result.stderr.splitlines()[:4] == [
        "3 credentials to revoke",
        "1 more has to go with that: they hang from the same token",
        "1 credential can only expire, the last at 2026-01-31 12:05:00Z: left alone",
        "2 credentials had been put up before and not confirmed: `broker revocations`",
    ]
    assert "Revoke 4 credentials?" in result.stderr
    assert result.stdout.splitlines()[1:3] == [
        f"put 3 credentials up for revocation, and 1 more that had to go with that ({ORDER})",
        "Vault has confirmed 3, 1 pending: the broker keeps asking, and `broker revocations` shows what holds them up",
    ]
    assert [order.validate_only for order in fake.orders] == [True, False]
    assert {order.reason for order in fake.orders} == {"too wide"}


def test_nothing_goes_without_a_yes(broker: Command, fake: FakeBroker) -> None:
    broker("revoke", "--agent", AGENT, *WHY, answer="n\n", expect=1)
    assert [order.validate_only for order in fake.orders] == [True]


def test_yes_asks_nothing(broker: Command, fake: FakeBroker) -> None:
    fake.taken_back = RevokeIssuancesResponse(id=ORDER, revoked_issuances=1, confirmed_issuances=1)
    assert broker("revoke", "--agent", AGENT, *WHY, "--yes").stdout.splitlines() == [
        f"put 1 credential up for revocation ({ORDER})",
        "Vault has confirmed that nothing of it is left",
    ]
    assert [order.validate_only for order in fake.orders] == [False]


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_a_dry_run_only_counts(broker: Command, fake: FakeBroker, yes: tuple[str, ...]) -> None:
    assert "3 credentials to revoke" in broker("revoke", "--agent", AGENT, *WHY, "--dry-run", *yes).stdout
    assert json.loads(broker("revoke", "--agent", AGENT, *WHY, "--dry-run", "-o", "json").stdout)["id"] == ""
    assert [order.validate_only for order in fake.orders] == [True, True]


def test_nothing_to_revoke(broker: Command, fake: FakeBroker) -> None:
    fake.taken_back = RevokeIssuancesResponse()
    assert broker("revoke", "--agent", AGENT, *WHY).stdout == "nothing to revoke\n"
    assert [order.validate_only for order in fake.orders] == [True]
    assert broker("revoke", "--agent", AGENT, *WHY, "-y").stdout == "there was nothing to revoke\n"


def test_programs_get_the_reply_alone(broker: Command) -> None:
    result = broker("revoke", "--agent", AGENT, *WHY, "-o", "json", answer="y\n")
    _, _, answer = result.stdout.partition("\n")  # the first line is what was typed
    assert json.loads(answer)["pending_issuances"] == 1


def test_everything_that_can_be_selected(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(0xAA), task(0xAB)]
    for words, selected in {
        ("--agent", AGENT): RevocationSelector(agent=AGENT),
        ("--scope", "reports-db"): RevocationSelector(scope=ScopeSelector(name="reports-db")),
        ("--scope", "reports-db", "--version", "3"): RevocationSelector(
            scope=ScopeSelector(name="reports-db", version=3)
        ),
        ("--task", TASK_ID): RevocationSelector(task_id=TASK_ID),
        ("--task", "…000000aa"): RevocationSelector(task_id=TASK_ID),
        ("--issuance", ISSUANCE_ID): RevocationSelector(issuance_id=ISSUANCE_ID),
    }.items():
        broker("revoke", *words, *WHY, "-y")
        assert fake.orders[-1].selector == selected


@pytest.mark.parametrize(
    "words",
    [
        WHY,
        ("--agent", AGENT, "--scope", "reports-db", *WHY),
        ("--agent", AGENT, "--version", "3", *WHY),
        ("--scope", "reports-db", "--version", "0", *WHY),
        ("--agent", AGENT),
    ],
    ids=["nothing", "two things", "a version of no scope", "version 0", "no reason"],
)
def test_what_is_not_clear_is_not_sent(broker: Command, fake: FakeBroker, words: tuple[str, ...]) -> None:
    broker("revoke", *words, "-y", expect=2)
    assert fake.orders == []
