"""Working off the outbox, on every database."""

import asyncio
import threading
from typing import cast

import pytest
from sqlalchemy import Connection

from broker import revoke
from broker.mint.vault import VaultClient
from broker.model import AnchorRecord
from broker.outbox import HOLD, Revoker
from broker.store import Store, revocations
from tests.fixtures.clock import FakeClock
from tests.fixtures.waiting import until


class Slow:
    """A Vault that revokes when it is told to go on."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    async def revoke_token(self, accessor: str) -> bool:
        self.asked += 1
        await self.go_on.wait()
        return True


async def test_a_claim_taken_anew_while_its_work_ends_is_not_left_without_work(
    store: Store, anchor: AnchorRecord, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.outbox._IDLE_SECONDS", 60)  # it looks when it is woken
    vault = Slow()
    revoker = Revoker(store, cast("VaultClient", vault), clock, "one")
    await store.write(lambda conn: revoke.queue_anchors(conn, [anchor.id], "a test", clock.now()))

    database_stalls, database_answers = threading.Event(), threading.Event()

    def stall(_: Connection) -> None:
        database_stalls.set()
        database_answers.wait(10)

    async def confirmed() -> bool:
        entries = await store.read(lambda conn: revocations.of_task(conn, anchor.task_id))
        return all(entry.confirmed_at is not None for entry in entries)

    revoker.start()
    try:
        await until(lambda: vault.asked)
        stalled = asyncio.create_task(store.write(stall))
        await until(database_stalls.is_set)
        # One transaction takes the claim anew and refuses what the old claim has to say.
        clock.advance(2 * HOLD)
        revoker.wake()
        await until(lambda: store.writes_waiting == 1)
        vault.go_on.set()
        await until(lambda: store.writes_waiting == 2)
        database_answers.set()
        await stalled
        await until(confirmed, seconds=5)
    finally:
        database_answers.set()
        await revoker.stop()
