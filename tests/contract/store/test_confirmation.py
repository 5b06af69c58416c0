"""Waiting until Vault has confirmed, as the records say it."""

import asyncio
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.confirmation import wait_confirmed
from broker.model import IssuanceState
from broker.store import Store, issuances
from tests.contract.store.conftest import Issue
from tests.fixtures.records import NOW

LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=20)


async def pending(store: Store, ids: list[str], wait: timedelta) -> int:
    return await wait_confirmed(store, SystemClock(), ids, wait)


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.confirmation._AT_ONCE", 2)


async def test_what_is_confirmed_is_not_waited_for(store: Store, issue: Issue) -> None:
    over = [(await issue(state=state)).id for state in (IssuanceState.REVOKED, IssuanceState.EXPIRED)]
    assert await pending(store, over, LONG) == 0
    assert await pending(store, [], LONG) == 0


async def test_the_wait_ends_with_the_last_confirmation(store: Store, issue: Issue) -> None:
    ids = [(await issue(state=IssuanceState.REVOKING)).id for _ in range(5)]
    waiting = asyncio.create_task(pending(store, ids, LONG))
    for one in ids:
        assert not waiting.done()
        await store.write(lambda conn, one=one: issuances.confirm(conn, [one], NOW))  # type: ignore[misc]
    assert await waiting == 0


async def test_what_is_not_confirmed_in_time_is_counted(store: Store, issue: Issue) -> None:
    ids = [(await issue(state=IssuanceState.REVOKING)).id for _ in range(4)]
    ids.append((await issue(state=IssuanceState.REVOKED)).id)
    assert await pending(store, ids, SHORT) == 4


async def test_a_database_that_is_away_leaves_everything_pending(store: Store, issue: Issue) -> None:
    ids = [(await issue(state=IssuanceState.REVOKED)).id for _ in range(5)]
    await store.close()
    assert await pending(store, ids, LONG) == 5
