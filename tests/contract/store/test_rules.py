"""Rules in force: read as one, compiled where they are asked for; on every database."""

from collections.abc import Awaitable, Callable

import pytest

from broker.authorize import CompiledScope, compile_scope
from broker.document import parse_document
from broker.mint import MAPPINGS
from broker.model import ScopeRecord
from broker.policy import Policy, PolicyCache
from broker.store import Store, policy, scopes
from tests.fixtures.records import NOW, a_scope

DOCUMENT = """
apiVersion: credbroker.dev/v1
kind: Scope
metadata: {{name: {name}}}
spec:
  who: [{{spiffeId: "spiffe://example.org/*"}}]
  credential: {{kind: vault_token, rules: [{{path: "secret/data/x", capabilities: [read]}}]}}
  ttl: {{default: 15m, max: 30m}}
"""
Read = Callable[[], Awaitable[Policy]]


@pytest.fixture
def compiled() -> list[str]:
    return []


@pytest.fixture
def read(store: Store, compiled: list[str]) -> Read:
    def note(record: ScopeRecord) -> CompiledScope:
        compiled.append(record.name)
        return compile_scope(record, parse_document(record.document, MAPPINGS))

    cache = PolicyCache(note)
    return lambda: store.read(lambda conn: cache.read(conn, NOW))


async def put(store: Store, name: str, version: int = 1, document: str = DOCUMENT) -> None:
    record = a_scope(name, version=version, etag=f"{name}-{version}", document=document.format(name=name))
    await store.write(lambda conn: scopes.insert(conn, record))
    await store.write(policy.raise_revision)


async def test_a_scope_is_compiled_when_it_is_asked_for_and_once(store: Store, read: Read, compiled: list[str]) -> None:
    for name in ("a", "b", "c"):
        await put(store, name)
    rules = await read()
    assert compiled == []
    assert rules.scopes["b"].record.version == 1
    await put(store, "c", version=2)
    later = await read()
    assert later.scopes["b"] is rules.scopes["b"]
    assert (compiled, set(later.scopes), len(later.scopes)) == (["b"], {"a", "b", "c"}, 3)


async def test_what_changed_is_compiled_again_and_what_was_read_before_stays(
    store: Store, read: Read, compiled: list[str]
) -> None:
    await put(store, "a")
    before = await read()
    assert before.scopes["a"].record.version == 1
    await put(store, "a", version=2)
    after = await read()
    assert (after.scopes["a"].record.version, before.scopes["a"].record.version) == (2, 1)
    assert compiled == ["a", "a"]


async def test_a_retired_scope_is_gone(store: Store, read: Read) -> None:
    await put(store, "a")
    assert "a" in (await read()).scopes
    await store.write(lambda conn: (scopes.retire(conn, "a"), policy.raise_revision(conn)))
    assert (await read()).scopes.get("a") is None


async def test_one_that_cannot_be_compiled_is_not_found_and_tried_once(
    store: Store, read: Read, compiled: list[str]
) -> None:
    await put(store, "a", document="{{}}")
    rules = await read()
    assert (rules.scopes.get("a"), rules.scopes.get("a"), "a" in rules.scopes) == (None, None, False)
    assert compiled == ["a"]
