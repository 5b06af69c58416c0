"""A long history: it can be made fast, and what it leaves is what a broker reads."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.model import IssuanceState, Page
from broker.secret import Secret
from broker.store import Store, events, issuances
from tests.bench.volume_fill import History, agent_name, fill

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def history(database: Secret[str]) -> History:
    history = History(issuances=1_000, live=100, per_task=10, agents=20, scopes=5, until=UNTIL)
    fill(database, history)
    return history


async def test_a_history_is_there_with_its_living_part(history: History, store: Store) -> None:
    everything = await store.read(lambda conn: issuances.page(conn, Page(size=1000)))
    living = await store.read(lambda conn: issuances.page(conn, Page(size=1000, filter="state = ACTIVE")))
    assert len(everything.items) == history.issuances
    assert len(living.items) == history.live
    assert min(one.created_at for one in living.items) > max(
        one.created_at for one in everything.items if one.state is not IssuanceState.ACTIVE
    )


async def test_issuances_of_a_history_have_their_events(history: History, store: Store) -> None:
    question = Page(size=1, filter=f'agent = "{agent_name(0)}" AND state = REVOKED')
    (found,) = (await store.read(lambda conn: issuances.page(conn, question))).items
    life = await store.read(lambda conn: events.of_issuance(conn, found))
    assert [event.type for event in life] == ["credential.issued", "credential.revoked"]
    assert UNTIL - history.span <= found.created_at < UNTIL
    assert found.ended_at == found.created_at + timedelta(minutes=15)
