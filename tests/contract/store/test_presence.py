from datetime import timedelta

import pytest

from broker.model import ReplicaRecord
from broker.presence import FORGOTTEN, INTERVAL, Presence
from broker.store import Store, replicas
from tests.fixtures.clock import FakeClock
from tests.fixtures.store import NewStore
from tests.fixtures.waiting import until


async def names(store: Store) -> list[str]:
    return [replica.name for replica in await store.read(replicas.seen)]


async def test_a_replica_is_seen_from_its_start_to_its_end(store: Store, clock: FakeClock) -> None:
    presence = Presence(store, clock, "one", "1.2.3")
    started_at = clock.now()
    presence.start()
    await until(lambda: names(store))
    assert await store.read(replicas.seen) == [ReplicaRecord("one", "1.2.3", started_at, started_at)]

    await until(lambda: clock.sleepers)
    clock.advance(INTERVAL)

    async def seen_again() -> bool:
        return (await store.read(replicas.seen))[0].seen_at == started_at + INTERVAL

    await until(seen_again)
    assert (await store.read(replicas.seen))[0].started_at == started_at
    await presence.stop()
    assert await names(store) == []


async def test_what_ended_without_a_word_is_shown_for_an_hour(store: Store, clock: FakeClock) -> None:
    await Presence(store, clock, "killed", "1").turn()
    clock.advance(FORGOTTEN)
    other = Presence(store, clock, "other", "1")
    await other.turn()
    assert await names(store) == ["killed", "other"]

    clock.advance(timedelta(seconds=1))
    await other.turn()
    assert await names(store) == ["other"]


async def test_a_replica_that_was_forgotten_comes_back_as_it_was(store: Store, clock: FakeClock) -> None:
    paused = Presence(store, clock, "paused", "1")
    await paused.turn()
    (before,) = await store.read(replicas.seen)
    await store.write(lambda conn: replicas.remove(conn, "paused"))

    await paused.turn()

    assert await store.read(replicas.seen) == [before]


async def test_a_database_that_is_away_ends_nothing(
    new_store: NewStore, store: Store, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = await new_store()
    presence = Presence(gone, clock, "one", "1")
    await gone.close()
    running = presence.start()
    await until(lambda: clock.sleepers)
    assert not running.done()
    await presence.stop()
    assert "will retry" in capsys.readouterr().out
