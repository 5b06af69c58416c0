"""How much a selection means, on every database."""

from datetime import timedelta

import pytest

from broker.ids import new_id
from broker.model import AnchorRecord, IssuanceState, Revocability, Selection, Task
from broker.store import Store, anchors
from broker.store.selections import Extent, extent
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, NOW, an_anchor

NOTHING = Extent(matching=0, siblings=0, expiring=0, earlier=0, last_expires_at=None)


async def counted(store: Store, **given: str | int) -> Extent:
    return await store.read(lambda conn: extent(conn, Selection(**given)))  # type: ignore[arg-type]  # its fields


async def test_what_is_alive_is_counted_by_what_can_be_done(store: Store, issue: Issue) -> None:
    for state in IssuanceState:
        await issue(state=state, accessor=new_id())
    last = NOW + timedelta(minutes=9)
    for expires_at in (last, NOW):
        await issue(revocability=Revocability.AT_EXPIRY, expires_at=expires_at)
    # Nobody got this one yet: it is revoked whatever it would have been.
    await issue(revocability=Revocability.AT_EXPIRY, state=IssuanceState.MINTING)

    assert await counted(store, agent=AGENT) == Extent(
        matching=3, siblings=0, expiring=2, earlier=1, last_expires_at=last
    )


async def test_siblings_are_what_hangs_from_the_anchor_of_what_cannot_go_alone(
    store: Store, task: Task, issue: Issue
) -> None:
    other = an_anchor(task)
    await store.write(lambda conn: anchors.insert(conn, other))
    one = await issue(accessor=None, scope_version=1)
    await issue(accessor=None, scope_version=2)
    await issue(accessor=new_id(), scope_version=2)
    await issue(accessor=None, scope_version=2, state=IssuanceState.REVOKED)
    alone = await issue(accessor=new_id(), scope_version=1, anchor_id=other.id)
    await issue(accessor=None, scope_version=2, anchor_id=other.id)

    assert (await counted(store, issuance_id=one.id)).siblings == 2
    assert (await counted(store, issuance_id=alone.id)).siblings == 0
    assert await counted(store, scope=one.scope, scope_version=1) == Extent(2, 2, 0, 0, None)
    assert await counted(store, task_id=task.id) == Extent(5, 0, 0, 0, None)


@pytest.mark.parametrize(
    "given",
    [
        {"agent": "nobody"},
        {"scope": "none"},
        {"scope": "db-read", "scope_version": 99},
        {"task_id": new_id()},
        {"issuance_id": new_id()},
    ],
)
async def test_what_matches_nothing(store: Store, issue: Issue, given: dict[str, str | int]) -> None:
    await issue(accessor=None)
    assert await counted(store, **given) == NOTHING


async def test_everything_is_never_meant(store: Store, anchor: AnchorRecord) -> None:
    with pytest.raises(ValueError, match="must say what it selects"):
        await counted(store)
