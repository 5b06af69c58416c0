"""One-time evidence, on every database and across replicas."""

import asyncio
from datetime import timedelta

from broker.model import Proof
from broker.store import Store, proofs
from tests.fixtures.records import HOUR, NOW
from tests.fixtures.store import NewStore


async def consume(store: Store, proof: Proof) -> bool:
    return await store.write(lambda conn: proofs.consume(conn, proof))


async def test_a_proof_is_consumed_once(store: Store) -> None:
    first, second = Proof("a" * 64, NOW), Proof("b" * 64, NOW)
    assert [await consume(store, first), await consume(store, first), await consume(store, second)] == [
        True,
        False,
        True,
    ]


async def test_one_of_many_replicas_and_callers_consumes_it(new_store: NewStore) -> None:
    replicas = [await new_store() for _ in range(3)]
    for number in range(20):
        proof = Proof(f"{number:064x}", NOW)
        consumed = await asyncio.gather(*(consume(store, proof) for store in replicas for _ in range(4)))
        assert consumed.count(True) == 1


async def test_only_expired_proofs_are_forgotten(store: Store) -> None:
    expired, lasting = Proof("a" * 64, NOW), Proof("b" * 64, NOW + timedelta(microseconds=1))
    await consume(store, expired)
    await consume(store, lasting)
    assert await store.write(lambda conn: proofs.purge(conn, NOW)) == 1
    assert await consume(store, expired)
    assert not await consume(store, lasting)
    assert await store.write(lambda conn: proofs.purge(conn, NOW + HOUR)) == 2
