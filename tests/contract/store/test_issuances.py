"""Issuances, on every database."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from broker.errors import InvalidArgument
from broker.ids import new_id
from broker.model import AnchorRecord, Issuance, IssuanceState, Revocability, Selection
from broker.store import Store, issuances
from broker.store.issuances import Ending
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, HOUR, NOW, a_task

SECOND = timedelta(seconds=1)
LATER = NOW + 10 * SECOND

every_state = pytest.mark.parametrize("state", list(IssuanceState))


async def found(store: Store, issuance: Issuance) -> Issuance | None:
    return await store.read(lambda conn: issuances.get(conn, issuance.id))


def ending(issuance: Issuance) -> Ending:
    return Ending(*(getattr(issuance, name) for name in Ending._fields))


def activate(conn: Connection, issuance: Issuance) -> bool:
    return issuances.activate(
        conn,
        issuance.id,
        expires_at=NOW + HOUR,
        max_expires_at=NOW + 2 * HOUR,
        fingerprint="ab" * 32,
        lease_id="database/creds/x/1",
        accessor="holder",
        renewable=True,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameters": {}, "end_reason": "task.completed", "ended_at": NOW, "state": IssuanceState.REVOKED},
        {"accessor": "a", "lease_id": "database/creds/x/2", "request_id": new_id(), "renewable": True},
        {"renewed_at": NOW, "revoke_requested_at": LATER, "revocability": Revocability.AT_EXPIRY},
        {"parameters": {"text": "nul \x00, quote ', half \ud800", "big": 2**60, "list": [[], {}]}},
    ],
)
async def test_an_issuance_comes_back_as_it_was_stored(store: Store, issue: Issue, changes: dict[str, object]) -> None:
    issuance = await issue(**changes)
    assert await found(store, issuance) == issuance
    assert await store.write(lambda conn: issuances.pin(conn, issuance.id)) == issuance


async def test_an_unknown_issuance_is_none(store: Store) -> None:
    assert await store.read(lambda conn: issuances.get(conn, new_id())) is None
    assert await store.write(lambda conn: issuances.pin(conn, new_id())) is None


async def test_numbers_that_json_does_not_know_are_refused(issue: Issue) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        await issue(parameters={"limit": float("nan")})


async def test_a_request_finds_its_own_agents_issuance(store: Store, issue: Issue) -> None:
    request = new_id()
    issuance = await issue(request_id=request)
    await issue(request_id=request, agent=AGENT + "/other")
    await issue()
    assert await store.read(lambda conn: issuances.by_request(conn, AGENT, request)) == issuance
    assert await store.read(lambda conn: issuances.by_request(conn, AGENT, new_id())) is None


@every_state
async def test_only_an_intent_becomes_active(store: Store, issue: Issue, state: IssuanceState) -> None:
    issuance = await issue(state=state, fingerprint="")
    activated = await store.write(lambda conn: activate(conn, issuance))
    assert activated is (state is IssuanceState.MINTING)
    expected = replace(
        issuance,
        state=IssuanceState.ACTIVE,
        expires_at=NOW + HOUR,
        max_expires_at=NOW + 2 * HOUR,
        fingerprint="ab" * 32,
        lease_id="database/creds/x/1",
        accessor="holder",
        renewable=True,
    )
    assert await found(store, issuance) == (expected if activated else issuance)


@every_state
async def test_only_what_is_active_is_renewed(store: Store, issue: Issue, state: IssuanceState) -> None:
    issuance = await issue(state=state)
    renewed = await store.write(lambda conn: issuances.renewed(conn, issuance.id, NOW + HOUR, LATER))
    assert renewed is (state is IssuanceState.ACTIVE)
    expected = replace(issuance, expires_at=NOW + HOUR, renewed_at=LATER)
    assert await found(store, issuance) == (expected if renewed else issuance)


@every_state
async def test_revocation_is_requested_once(store: Store, issue: Issue, state: IssuanceState) -> None:
    issuance = await issue(state=state)
    moved = await store.write(lambda conn: issuances.request_revocation(conn, issuance.id, "agent.asked", LATER))
    assert moved is (state in (IssuanceState.MINTING, IssuanceState.ACTIVE))
    expected = replace(issuance, state=IssuanceState.REVOKING, revoke_requested_at=LATER, end_reason="agent.asked")
    assert await found(store, issuance) == (expected if moved else issuance)


async def test_a_whole_tasks_revocation_returns_what_it_moved(store: Store, issue: Issue) -> None:
    before = {
        (state, revocability): await issue(state=state, revocability=revocability)
        for state in IssuanceState
        for revocability in Revocability
    }
    other_task = a_task()
    task_id = next(iter(before.values())).task_id
    moved = await store.write(lambda conn: issuances.revoke_of_tasks(conn, [task_id], "task.completed", LATER))
    expected = {
        replace_key: replace(
            issuance, state=IssuanceState.REVOKING, revoke_requested_at=LATER, end_reason="task.completed"
        )
        for replace_key, issuance in before.items()
        if replace_key[0] is IssuanceState.MINTING
        or (replace_key[0] is IssuanceState.ACTIVE and replace_key[1] is not Revocability.AT_EXPIRY)
    }
    assert sorted(moved) == [ending(issuance) for issuance in expected.values()]
    for key, issuance in before.items():
        assert await found(store, issuance) == expected.get(key, issuance)
    assert (
        await store.write(lambda conn: issuances.revoke_of_tasks(conn, [other_task.id], "task.completed", LATER)) == []
    )


@every_state
async def test_only_an_intent_fails(store: Store, issue: Issue, state: IssuanceState) -> None:
    issuance = await issue(state=state)
    failed = await store.write(lambda conn: issuances.fail(conn, issuance.id, "mint_failed", LATER))
    assert failed is (state is IssuanceState.MINTING)
    expected = replace(issuance, state=IssuanceState.FAILED, end_reason="mint_failed", ended_at=LATER)
    assert await found(store, issuance) == (expected if failed else issuance)


async def test_what_is_selected_has_all_that_is_given(store: Store, issue: Issue, anchor: AnchorRecord) -> None:
    mine = [await issue(state=state) for state in IssuanceState]
    other = await issue(agent=AGENT + "/other", scope="wiki", scope_version=4)
    only_expires = await issue(revocability=Revocability.AT_EXPIRY)
    open_ones = {one.id for one in mine if one.state in (IssuanceState.MINTING, IssuanceState.ACTIVE)}

    async def selected(**given: Any) -> set[str]:
        return {
            one.id for one in await store.read(lambda conn: issuances.revocable(conn, Selection(**given), limit=100))
        }

    assert await selected(agent=AGENT) == open_ones
    assert await selected(scope="db-read") == open_ones
    assert await selected(scope="wiki", scope_version=4) == {other.id}
    assert await selected(scope="wiki", scope_version=3) == set()
    assert await selected(task_id=anchor.task_id) == {*open_ones, other.id}
    assert await selected(issuance_id=other.id) == {other.id}
    assert await selected(issuance_id=only_expires.id) == set()
    assert len(await store.read(lambda conn: issuances.revocable(conn, Selection(scope="db-read"), 1))) == 1
    with pytest.raises(ValueError, match="must say"):
        await selected()


async def test_the_end_of_an_anchor_confirms_what_has_no_token_of_its_own(
    store: Store, issue: Issue, anchor: AnchorRecord
) -> None:
    died = await issue(state=IssuanceState.REVOKING)
    for other in ({"state": IssuanceState.REVOKING, "accessor": "own"}, {"state": IssuanceState.ACTIVE}):
        await issue(**other)
    ended = await store.write(lambda conn: issuances.confirm_of_anchors(conn, [anchor.id], LATER))
    assert ended == [ending(died)]
    assert await found(store, died) == replace(died, state=IssuanceState.REVOKED, ended_at=LATER)


@pytest.mark.parametrize("expired", [False, True])
@every_state
async def test_only_what_is_revoking_is_confirmed(
    store: Store, issue: Issue, state: IssuanceState, expired: bool
) -> None:
    named, other = await issue(state=state), await issue(state=state)
    confirmed = await store.write(lambda conn: issuances.confirm(conn, [named.id], LATER, expired=expired))
    end = IssuanceState.EXPIRED if expired else IssuanceState.REVOKED
    ended = state is IssuanceState.REVOKING
    assert await found(store, named) == (replace(named, state=end, ended_at=LATER) if ended else named)
    assert confirmed == ([ending(named)] if ended else [])
    assert await found(store, other) == other


async def test_confirming_and_expiring_nothing_is_nothing(store: Store) -> None:
    await store.write(lambda conn: issuances.confirm(conn, [], LATER))
    await store.write(lambda conn: issuances.expire(conn, [], LATER))


async def test_what_expired_is_found_and_ends_at_its_expiry(store: Store, issue: Issue) -> None:
    second, first = [await issue(expires_at=NOW + n * SECOND) for n in (2, 1)]
    renewed = await issue(expires_at=NOW + 3 * SECOND)
    await issue(expires_at=NOW, state=IssuanceState.REVOKING)
    holding = await issue(expires_at=NOW + SECOND / 2, accessor="own", lease_id="lease")
    due = [(holding.id, "own", "lease"), (first.id, None, None), (second.id, None, None)]
    assert await store.read(lambda conn: issuances.expired(conn, NOW + 2 * SECOND, 10)) == due
    assert await store.read(lambda conn: issuances.expired(conn, LATER, 1)) == due[:1]
    await store.write(lambda conn: issuances.renewed(conn, renewed.id, NOW + HOUR, NOW))
    ids = [first.id, second.id, renewed.id]
    await store.write(lambda conn: issuances.expire(conn, ids, LATER))
    for issuance in (first, second):
        expected = replace(issuance, state=IssuanceState.EXPIRED, ended_at=issuance.expires_at)
        assert await found(store, issuance) == expected
    assert await found(store, renewed) == replace(renewed, expires_at=NOW + HOUR, renewed_at=NOW)


async def test_intents_left_behind_are_found_oldest_first(store: Store, issue: Issue) -> None:
    second, first = [await issue(state=IssuanceState.MINTING, created_at=NOW + n * SECOND) for n in (2, 1)]
    await issue(created_at=NOW)
    assert await store.read(lambda conn: issuances.minting_before(conn, NOW + 2 * SECOND, 10)) == [first]
    assert await store.read(lambda conn: issuances.minting_before(conn, LATER, 10)) == [first, second]
    assert await store.read(lambda conn: issuances.minting_before(conn, LATER, 1)) == [first]


async def test_live_ones_are_counted(store: Store, issue: Issue, anchor: AnchorRecord) -> None:
    for state in IssuanceState:
        await issue(state=state)
    await issue(agent=AGENT + "/other")
    await issue(scope="wiki")

    async def count(**by: str) -> int:
        await store.write(issuances.lock_limits)
        return await store.read(lambda conn: issuances.count_live(conn, **by))

    assert await count() == 5
    assert await count(scope="db-read") == 4
    assert await count(scope="db-read", agent=AGENT) == 3
    assert await count(scope="db-read", agent=AGENT, task_id=anchor.task_id) == 3
    assert await count(task_id=anchor.task_id) == 5
    assert await count(task_id=new_id()) == 0
    assert await count(agent="nobody") == 0


async def test_recent_ones_are_counted_unless_they_failed(store: Store, issue: Issue) -> None:
    for state in IssuanceState:
        await issue(state=state, created_at=LATER)
    await issue(created_at=LATER - timedelta(microseconds=1))
    await issue(created_at=LATER, agent=AGENT + "/other")
    await issue(created_at=LATER, scope="wiki")

    def count(conn: Connection) -> int:
        return issuances.count_since(conn, agent=AGENT, scope="db-read", since=LATER)

    assert await store.read(count) == len(IssuanceState) - 1


async def test_a_list_of_identifiers_is_checked_too(store: Store) -> None:
    with pytest.raises(InvalidArgument):
        await store.write(lambda conn: issuances.confirm(conn, ["x' OR '1'='1"], NOW))
