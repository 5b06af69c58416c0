"""Taking back is not bounded by the request that it is for, on every database."""

from datetime import timedelta
from typing import cast

from broker import deadline
from broker.anchors import Anchors
from broker.errors import VaultUnavailable
from broker.ids import new_id
from broker.mint.vault import VaultClient
from broker.model import Anchor, AnchorRecord, IssuanceState, Revocability
from broker.outbox import Revoker
from broker.secret import Secret
from broker.store import Store, issuances, revocations
from broker.undo import Undo
from tests.contract.store.conftest import Issue
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import HOUR


class Away:
    """A Vault that does not answer."""

    async def revoke_token(self, accessor: str) -> None:
        raise VaultUnavailable("away")


async def test_a_record_that_was_kept_unsaid_ends_although_the_deadline_has_passed(
    store: Store, anchor: AnchorRecord, issue: Issue, clock: FakeClock
) -> None:
    issuance = await issue(accessor="own", revocability=Revocability.INDIVIDUAL, request_id=new_id())
    vault = cast("VaultClient", Away())
    revoker = Revoker(store, vault, clock, "one")
    undo = Undo(store, vault, cast("Anchors", None), revoker, clock)
    held = Anchor(anchor.id, anchor.task_id, anchor.role, "accessor", Secret("s.x"), clock.now() + HOUR)

    with deadline.within(timedelta()):
        await undo.unrecorded(held, issuance)

    found = await store.read(lambda conn: issuances.get(conn, issuance.id))
    assert found is not None
    assert (found.state, found.end_reason, found.request_id) == (IssuanceState.REVOKING, "record.failed", None)
    queued = await store.read(lambda conn: revocations.of_task(conn, anchor.task_id))
    assert [entry.accessor for entry in queued] == ["own"]
