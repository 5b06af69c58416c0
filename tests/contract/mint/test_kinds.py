"""What every credential kind promises, on a real Vault. New kinds join through `examples.py`."""

from datetime import timedelta
from functools import partial

import pytest

from broker.errors import IssuanceEnded, MintFailed, NotRenewable
from broker.mint import KINDS, MAPPINGS
from broker.mint.children import ISSUANCE_META
from broker.mint.retract import is_gone, retract
from broker.model import Revocability
from tests.contract.mint.examples import EXAMPLES, World
from tests.contract.mint.world import until

SECOND = timedelta(seconds=1)


def test_every_kind_has_an_example() -> None:
    assert {example.kind for example in EXAMPLES} == set(KINDS) == set(MAPPINGS)


async def test_what_is_minted_works(world: World) -> None:
    assert await world.works(await world.mint(await world.anchor()))


async def test_what_is_minted_is_not_shown(world: World) -> None:
    minted = await world.mint(await world.anchor())
    for value in minted.secret.reveal().values():
        assert str(value) not in repr(minted)


async def test_dies_with_its_anchor_at_once(world: World) -> None:
    anchor = await world.anchor()
    minted = [await world.mint(anchor) for _ in range(3)]
    assert [await world.works(one) for one in minted] == [True] * 3

    assert await retract(world.vault, anchor.accessor, None)

    if minted[0].lease_id is None:
        assert [await world.works(one) for one in minted] == [False] * 3
    for one in minted:
        if one.accessor is not None:
            accessor, lease_id = one.accessor, one.lease_id
            await until(partial(is_gone, world.vault, accessor, lease_id))
    assert [await world.works(one) for one in minted] == [False] * 3


@pytest.mark.long
async def test_ends_by_itself_when_nobody_takes_it_back(world: World) -> None:
    minted = await world.mint(await world.anchor(), world.order(ttl=5 * SECOND, max_ttl=5 * SECOND))
    assert await world.works(minted)

    async def refused() -> bool:
        return not await world.works(minted)

    await until(refused, within=30)
    assert world.vault.now() >= minted.expires_at - SECOND


async def test_expiry_is_what_vault_says_and_never_beyond_the_anchor(world: World) -> None:
    before = world.vault.now()
    anchor = await world.anchor(ttl=30 * SECOND)
    short = await world.mint(anchor, world.order(ttl=10 * SECOND, max_ttl=20 * SECOND))
    assert before < short.expires_at <= world.vault.now() + 10 * SECOND
    assert short.expires_at <= short.max_expires_at <= world.vault.now() + 20 * SECOND

    long = await world.mint(anchor, world.order(ttl=timedelta(hours=1), max_ttl=timedelta(hours=2)))
    assert long.expires_at <= long.max_expires_at <= anchor.expires_at


async def test_vault_itself_bounds_the_time_to_live(world: World) -> None:
    minted = await world.mint(await world.anchor(), world.order(ttl=20 * SECOND, max_ttl=40 * SECOND))
    if minted.accessor is None:
        client = world.as_agent(minted.secret.reveal())
        token = client.token
        found = world.admin.auth.token.lookup(token)["data"]
        assert found["type"] == "batch"
    else:
        found = world.admin.auth.token.lookup_accessor(minted.accessor)["data"]
        assert found["type"] == "service"
        assert 0 < found["explicit_max_ttl"] <= 40
    assert 0 < found["ttl"] <= 20
    assert found["policies"] == [world.role]


async def test_vaults_books_name_the_issuance(world: World) -> None:
    order = world.order()
    minted = await world.mint(await world.anchor(), order)
    if minted.accessor is not None:
        found = world.admin.auth.token.lookup_accessor(minted.accessor)["data"]
        assert found["meta"] == {ISSUANCE_META: order.issuance_id}


async def test_a_dead_anchor_mints_nothing(world: World) -> None:
    anchor = await world.anchor()
    await retract(world.vault, anchor.accessor, None)
    with pytest.raises(MintFailed, match="permission denied"):
        await world.mint(anchor)


async def test_less_than_a_second_to_live_is_refused(world: World) -> None:
    anchor = await world.anchor()
    with pytest.raises(MintFailed, match="less than one second"):
        await world.mint(anchor, world.order(ttl=timedelta(milliseconds=900)))


async def test_what_is_individual_is_taken_back_by_itself(world: World) -> None:
    anchor = await world.anchor()
    one, other = await world.mint(anchor), await world.mint(anchor)
    if world.kind.revocability(world.mapping) is not Revocability.INDIVIDUAL:
        assert one.accessor is None
        return
    if one.accessor is None:
        raise AssertionError("an individual credential needs an accessor")
    accessor = one.accessor
    assert not await is_gone(world.vault, accessor, one.lease_id)

    await until(lambda: retract(world.vault, accessor, one.lease_id))

    assert not await world.works(one)
    assert await world.works(other)


async def test_taking_back_what_is_gone_succeeds(world: World) -> None:
    anchor = await world.anchor()
    minted = await world.mint(anchor)
    accessor, lease_id = minted.accessor or anchor.accessor, minted.lease_id
    await until(lambda: retract(world.vault, accessor, lease_id))
    assert await retract(world.vault, accessor, lease_id)
    assert await is_gone(world.vault, accessor, lease_id)


async def test_renewal_prolongs_and_stops_at_the_maximum(world: World) -> None:
    anchor = await world.anchor()
    minted = await world.mint(anchor, world.order(ttl=5 * SECOND, max_ttl=30 * SECOND))
    issuance = world.issuance(minted)
    if not minted.renewable:
        assert minted.max_expires_at == minted.expires_at
        with pytest.raises(NotRenewable):
            await world.kind.renew(world.vault, issuance, 20 * SECOND)
        return

    longer = await world.kind.renew(world.vault, issuance, 20 * SECOND)
    assert minted.expires_at < longer <= world.vault.now() + 20 * SECOND

    longest = await world.kind.renew(world.vault, issuance, timedelta(hours=10))
    assert longer < longest <= minted.max_expires_at
    found = world.admin.auth.token.lookup_accessor(minted.accessor)["data"]
    assert world.vault.now() + found["ttl"] * SECOND <= minted.max_expires_at + SECOND


@pytest.mark.long
async def test_what_is_renewed_outlives_its_first_expiry(world: World) -> None:
    minted = await world.mint(await world.anchor(), world.order(ttl=5 * SECOND, max_ttl=60 * SECOND))
    if not minted.renewable:
        assert world.example.name == "batch token"
        return
    await world.kind.renew(world.vault, world.issuance(minted), 60 * SECOND)

    async def first_expiry_is_past() -> bool:
        return world.vault.now() > minted.expires_at + SECOND

    await until(first_expiry_is_past)
    assert await world.works(minted)


async def test_what_has_its_longest_life_from_the_start_is_not_renewable(world: World) -> None:
    minted = await world.mint(await world.anchor(), world.order(ttl=30 * SECOND, max_ttl=30 * SECOND))
    assert not minted.renewable
    assert minted.max_expires_at == minted.expires_at


async def test_renewal_of_what_is_gone_says_so(world: World) -> None:
    minted = await world.mint(await world.anchor())
    if minted.accessor is None or not minted.renewable:
        return
    accessor = minted.accessor
    await until(lambda: retract(world.vault, accessor, minted.lease_id))
    with pytest.raises(IssuanceEnded):
        await world.kind.renew(world.vault, world.issuance(minted), timedelta(minutes=1))
