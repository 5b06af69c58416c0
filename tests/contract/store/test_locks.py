"""Locks, on every database."""

from datetime import timedelta

import pytest

from broker.errors import FilterInvalid
from broker.ids import new_id
from broker.model import Lock, LockKind, Page
from broker.store import Store, locks
from tests.fixtures.records import HOUR, NOW, a_lock

MICROSECOND = timedelta(microseconds=1)


async def stored(store: Store, lock: Lock) -> Lock:
    await store.write(lambda conn: locks.insert(conn, lock))
    return lock


async def test_locks_hold_until_they_expire_or_are_lifted(store: Store) -> None:
    lasting = await stored(store, a_lock(kind=LockKind.AGENT_PATTERN, target="spiffe://example.org/**"))
    passing = await stored(store, a_lock(kind=LockKind.SCOPE, target="wiki", expires_at=NOW + HOUR))
    assert await store.read(lambda conn: locks.in_force(conn, NOW + HOUR - MICROSECOND)) == [lasting, passing]
    assert await store.read(lambda conn: locks.in_force(conn, NOW + HOUR)) == [lasting]

    assert await store.write(lambda conn: locks.lift(conn, lasting.id, "admin", NOW)) == lasting
    assert await store.read(lambda conn: locks.in_force(conn, NOW)) == [passing]


async def test_only_a_lock_in_force_can_be_lifted(store: Store) -> None:
    lock = await stored(store, a_lock(expires_at=NOW + HOUR))
    assert await store.write(lambda conn: locks.lift(conn, new_id(), "admin", NOW)) is None
    assert await store.write(lambda conn: locks.lift(conn, lock.id, "admin", NOW + HOUR)) is None
    assert await store.write(lambda conn: locks.lift(conn, lock.id, "admin", NOW)) == lock
    assert await store.write(lambda conn: locks.lift(conn, lock.id, "admin", NOW)) is None


async def test_pages_show_what_is_in_force_newest_first(store: Store) -> None:
    kept = [await stored(store, a_lock()) for _ in range(3)]
    lifted = await stored(store, a_lock())
    await store.write(lambda conn: locks.lift(conn, lifted.id, "admin", NOW))
    await stored(store, a_lock(expires_at=NOW))
    first = await store.read(lambda conn: locks.page(conn, Page(size=2), NOW))
    second = await store.read(lambda conn: locks.page(conn, Page(size=2, token=first.next_token), NOW + HOUR))
    assert [*first.items, *second.items] == kept[::-1]


async def test_this_list_takes_no_filter(store: Store) -> None:
    with pytest.raises(FilterInvalid, match="takes no filter"):
        await store.read(lambda conn: locks.page(conn, Page(filter="reason = x"), NOW))
