"""Leases and the installation's name, on every database."""

from datetime import timedelta
from uuid import UUID

import pytest

from broker.lease import LIFE, Lease, LeaseLost
from broker.model import LeaseRecord
from broker.store import Store, leases
from broker.store.installation import installation_id
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import HOUR, NOW

SECOND = timedelta(seconds=1)
LONG = 6 * SECOND


async def take(store: Store, holder: str, after: timedelta = timedelta(), name: str = "sweep") -> int | None:
    return await store.write(lambda conn: leases.take(conn, name, holder, NOW + after, LONG))


async def test_a_lease_has_one_holder_until_it_runs_out(store: Store) -> None:
    assert await take(store, "one") == 1
    assert await take(store, "two", LONG - SECOND) is None
    assert await take(store, "two", name="reap") == 1
    assert await take(store, "two", LONG) == 2
    assert await take(store, "one", LONG) is None
    assert await store.read(leases.all_leases) == [
        LeaseRecord("reap", "two", 1, NOW + LONG),
        LeaseRecord("sweep", "two", 2, NOW + 2 * LONG),
    ]


async def test_only_the_newest_epoch_is_held_extended_or_released(store: Store) -> None:
    stale = await take(store, "one")
    newer = await take(store, "two", LONG)
    assert stale is not None
    assert newer is not None
    assert not await store.write(lambda conn: leases.held(conn, "sweep", stale))
    assert await store.write(lambda conn: leases.held(conn, "sweep", newer))
    assert not await store.write(lambda conn: leases.extend(conn, "sweep", stale, NOW + HOUR))
    await store.write(lambda conn: leases.release(conn, "sweep", stale, NOW))
    assert await take(store, "three", LONG) is None
    assert await store.write(lambda conn: leases.extend(conn, "sweep", newer, NOW + 3 * LONG))
    assert await take(store, "three", 2 * LONG) is None
    await store.write(lambda conn: leases.release(conn, "sweep", newer, NOW + 2 * LONG))
    assert await take(store, "three", 2 * LONG) == 3


async def test_a_lease_from_a_clock_far_ahead_keeps_nobody_waiting(store: Store) -> None:
    assert await take(store, "ahead", HOUR) == 1
    assert await take(store, "right") == 2


async def test_a_paused_holder_writes_nothing_after_another_took_over(store: Store) -> None:
    clocks = FakeClock(), FakeClock()
    first, second = (Lease(store, clock, "sweep", name) for clock, name in zip(clocks, ("one", "two"), strict=True))
    assert await first.hold()
    assert await first.write(lambda conn: "written") == "written"
    assert not await second.hold()
    clocks[1].advance(LIFE.total_seconds())
    assert await second.hold()

    with pytest.raises(LeaseLost):
        await first.write(lambda conn: "written")

    assert not first.is_held
    assert not await first.hold()
    assert await second.write(lambda conn: "written") == "written"


async def test_a_lease_is_kept_by_its_holder_and_given_back(store: Store) -> None:
    clock = FakeClock()
    first, second = Lease(store, clock, "sweep", "one"), Lease(store, clock, "sweep", "two")
    for _ in range(5):
        assert await first.hold()
        clock.advance(LIFE.total_seconds() / 2)
        assert not await second.hold()
    await first.release()
    assert await second.hold()
    await first.release()
    assert await second.write(lambda conn: True)


async def test_an_installation_keeps_its_name(store: Store) -> None:
    name = await store.read(installation_id)
    assert str(UUID(name)) == name
    assert await store.read(installation_id) == name
