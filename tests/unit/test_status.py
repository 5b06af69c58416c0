"""What of the broker's condition needs a person."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.mint.health import VaultHealth
from broker.status import Problem, StoreStatus, find_problems
from tests.fixtures.records import NOW, a_revocation, a_store_status, a_task

WELL = VaultHealth(version="2.7.2", clock_difference=timedelta(seconds=5))


def problems(
    store: StoreStatus | None = None, vault: VaultHealth = WELL, newest: str = "0002", doubt: str = ""
) -> list[Problem]:
    return list(find_problems(store or a_store_status(), newest, vault, doubt, NOW))


def with_standing(**changes: int) -> StoreStatus:
    status = a_store_status()
    return replace(status, standing=replace(status.standing, **changes))  # type: ignore[arg-type]  # its counts


def test_nothing_needs_anybody() -> None:
    assert problems() == []
    assert problems(with_standing(pending_revocations=5, failing_revocations=5, unconfirmed_tasks=2)) == []


@pytest.mark.parametrize("seconds", [6, -6])
def test_clocks_that_differ(seconds: int) -> None:
    (found,) = problems(vault=VaultHealth(clock_difference=timedelta(seconds=seconds)))
    assert found.reason == "CLOCKS_DIFFER"
    assert "6 seconds" in found.message
    assert problems(vault=VaultHealth(clock_difference=None)) == []


def test_a_clock_in_doubt() -> None:
    (found,) = problems(vault=VaultHealth(clock_difference=timedelta(minutes=1)), doubt="it is a minute late")
    assert found.reason == "CLOCK_UNCERTAIN"
    assert "it is a minute late" in found.message
    (unknown,) = problems(vault=VaultHealth(clock_difference=None), doubt="Vault has not told its time")
    assert unknown.reason == "CLOCK_UNCERTAIN"
    (away,) = problems(vault=VaultHealth(problem="no answer"), doubt="Vault has not told its time")
    assert away.reason == "VAULT_NOT_READY"


def test_a_vault_that_cannot_be_used() -> None:
    (found,) = problems(vault=VaultHealth(problem="Vault is sealed"))
    assert found.reason == "VAULT_NOT_READY"
    assert "Vault is sealed" in found.message


def test_a_database_of_another_version() -> None:
    (found,) = problems(newest="0003")
    assert (found.reason, "0002" in found.message, "0003" in found.message) == ("MIGRATION_DIFFERS", True, True)


def test_what_vault_does_not_take_back() -> None:
    overdue = a_revocation(a_task(), requested_at=NOW - timedelta(seconds=90), last_error="engine is away")
    status = with_standing(irrevocable_leases=2)
    irrevocable, late = problems(replace(status, overdue=(overdue,)))
    assert (irrevocable.reason, late.reason) == ("LEASES_IRREVOCABLE", "REVOCATIONS_OVERDUE")
    assert "2 leases" in irrevocable.message
    assert "90 seconds" in late.message
    assert "engine is away" in late.message
