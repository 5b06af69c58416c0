"""Taking back goes on when its caller goes away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from broker.audit import Call
from broker.ids import new_id
from broker.model import Caller, EvidenceKind, Identity, IssuanceState, Page, Role, Selection, Task
from broker.step import Step, observe
from broker.store import Store, anchors, events, issuances
from broker.takeback import Revoked, Takeback
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import NOW, an_anchor, an_issuance

ADMIN = Identity("https://i.test#admin", EvidenceKind.OIDC, "https://i.test", "admin", {}, "e" * 64, NOW)


class Revoker:
    """Is told to look."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
async def held(store: Store, task: Task) -> list[str]:
    """Five credentials, each under an anchor of its own."""
    made = [an_anchor(task, accessor=new_id()) for _ in range(5)]
    out = [an_issuance(anchor, accessor=None) for anchor in made]
    for anchor, issuance in zip(made, out, strict=True):
        await store.write(lambda conn, anchor=anchor: anchors.insert(conn, anchor))  # type: ignore[misc]
        await store.write(lambda conn, issuance=issuance: issuances.insert(conn, issuance))  # type: ignore[misc]
    return [issuance.id for issuance in out]


async def test_what_was_begun_goes_on_without_its_caller(
    store: Store, clock: FakeClock, task: Task, held: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.takeback.CHUNK", 1)
    revoker = Revoker()
    takeback = Takeback(store, revoker, clock, timedelta())  # type: ignore[arg-type]  # only `wake` is used
    call = Call("m", "p", NOW, Caller(ADMIN, frozenset({Role.ADMIN})))
    asking: asyncio.Task[Revoked]

    @contextmanager
    def hang_up(step: Step) -> Iterator[None]:
        yield
        if step is Step.TAKEBACK_ORDER:
            asking.cancel()

    end = observe(hang_up)
    try:
        asking = asyncio.create_task(takeback.revoke(call, Selection(task_id=task.id), "a test"))
        with suppress(asyncio.CancelledError):
            await asking
        assert asking.cancelled()
        await takeback.drain()
    finally:
        end()
    states = [await store.read(lambda conn, one=one: issuances.get(conn, one)) for one in held]  # type: ignore[misc]
    assert {issuance.state for issuance in states if issuance is not None} == {IssuanceState.REVOKING}
    assert revoker.woken == 5
    found = (await store.read(lambda conn: events.page(conn, Page()))).items
    assert sorted(event.type for event in found) == ["credential.revocation_requested"] * 5 + ["revocation.ordered"]
