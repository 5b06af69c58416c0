"""Scopes and their versions, on every database."""

from dataclasses import replace

import pytest

from broker.errors import FilterInvalid
from broker.model import Page, ScopeRecord
from broker.store import Store, scopes
from tests.fixtures.records import HOUR, NOW, a_scope


async def stored(store: Store, record: ScopeRecord) -> ScopeRecord:
    await store.write(lambda conn: scopes.insert(conn, record))
    return record


async def current(store: Store) -> list[ScopeRecord]:
    return await store.read(scopes.current)


async def test_the_newest_version_is_the_only_current_one(store: Store) -> None:
    first = await stored(store, a_scope())
    assert await current(store) == [first]
    second = await stored(store, replace(first, version=2, etag="e2", document="näw", created_at=NOW + HOUR))
    wiki = await stored(store, a_scope("wiki"))
    assert await current(store) == [second, wiki]
    assert await store.read(lambda conn: scopes.get(conn, "db-read", None)) == second
    assert await store.read(lambda conn: scopes.get(conn, "db-read", 1)) == first
    assert await store.read(lambda conn: scopes.get(conn, "db-read", 2)) == second
    assert await store.read(lambda conn: scopes.get(conn, "db-read", 3)) is None
    assert await store.read(lambda conn: scopes.get(conn, "none", None)) is None


async def test_a_retired_scope_stays_readable_and_can_come_back(store: Store) -> None:
    first = await stored(store, a_scope())
    assert await store.write(lambda conn: scopes.retire(conn, "db-read"))
    assert not await store.write(lambda conn: scopes.retire(conn, "db-read"))
    assert not await store.write(lambda conn: scopes.retire(conn, "none"))
    assert await current(store) == []
    assert await store.read(lambda conn: scopes.get(conn, "db-read", None)) is None
    assert await store.read(lambda conn: scopes.get(conn, "db-read", 1)) == first
    assert await store.read(lambda conn: scopes.newest_version(conn, "db-read")) == 1
    again = await stored(store, replace(first, version=2))
    assert await current(store) == [again]


async def test_versions_are_counted_per_name(store: Store) -> None:
    assert await store.read(lambda conn: scopes.newest_version(conn, "db-read")) == 0
    await stored(store, a_scope(version=4))
    assert await store.read(lambda conn: scopes.newest_version(conn, "db-read")) == 4
    assert await store.read(lambda conn: scopes.newest_version(conn, "db")) == 0


async def test_pages_of_current_versions_come_by_name(store: Store) -> None:
    for name in ("c", "a", "e", "b", "d"):
        await stored(store, a_scope(name))
    await store.write(lambda conn: scopes.retire(conn, "b"))
    first = await store.read(lambda conn: scopes.page(conn, Page(size=2)))
    second = await store.read(lambda conn: scopes.page(conn, Page(size=2, token=first.next_token)))
    assert [record.name for record in (*first.items, *second.items)] == ["a", "c", "d", "e"]
    assert second.next_token == ""


async def test_this_list_takes_no_filter(store: Store) -> None:
    with pytest.raises(FilterInvalid, match="takes no filter"):
        await store.read(lambda conn: scopes.page(conn, Page(filter="name = a")))
