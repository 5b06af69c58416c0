"""Leased secrets: PostgreSQL users that hang from a holder."""

import dataclasses
from datetime import timedelta
from functools import partial

import hvac
import psycopg
import pytest
from psycopg import sql

from broker.errors import MintFailed, ParametersInvalid
from broker.mint.provision import apply_scope
from broker.mint.retract import is_gone, retract
from broker.model import JsonValue
from tests.contract.mint.examples import EXAMPLES, Example, World, connect
from tests.contract.mint.world import document_of, until

HOSTILE = (
    "..",
    ".",
    "",
    "a/b",
    "..%2f..%2fsys",
    "reports%2f",
    "reports?x=1",
    "reports#",
    "a b",
    "re\x00",
    "\uff52eports",
    "a\n",
    "+",
    "*",
    "{role}",
)


@pytest.fixture
def example(databases: object) -> Example:
    return next(example for example in EXAMPLES if example.name == "database user")


async def test_taking_it_back_cuts_a_live_session_and_drops_the_user(world: World) -> None:
    minted = await world.mint(await world.anchor())
    if minted.accessor is None:
        raise AssertionError("a leased secret needs a holder")
    accessor, user = minted.accessor, minted.secret.reveal()["username"]
    with connect(world, minted.secret.reveal()) as session:
        session.execute("SELECT 1")
        session.commit()
        assert user in users(world)

        await until(lambda: retract(world.vault, accessor, minted.lease_id))

        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert user not in users(world)


async def test_the_anchor_takes_users_with_it(world: World) -> None:
    anchor = await world.anchor()
    minted = [await world.mint(anchor) for _ in range(3)]
    await retract(world.vault, anchor.accessor, None)
    for one in minted:
        accessor, lease_id = str(one.accessor), one.lease_id
        await until(partial(is_gone, world.vault, accessor, lease_id))
    assert not {one.secret.reveal()["username"] for one in minted} & users(world)


@pytest.mark.parametrize("value", [*HOSTILE, 7, None, ["reports"]])
async def test_a_parameter_that_is_no_plain_segment_never_reaches_vault(world: World, value: JsonValue) -> None:
    order = world.order(parameters={"role": value})
    before = len(world.openbao.audit_log.read_bytes())
    with pytest.raises(ParametersInvalid) as refused:
        world.kind.check(world.mapping, order.parameters)
    assert refused.value.violations[0].field == "parameters.role"
    anchor = await world.anchor()
    written = len(world.openbao.audit_log.read_bytes())
    assert written > before
    with pytest.raises(ParametersInvalid):
        await world.kind.prepare(world.vault, anchor, order)
    assert len(world.openbao.audit_log.read_bytes()) == written


async def test_a_missing_parameter_is_named(world: World) -> None:
    with pytest.raises(ParametersInvalid, match="parameter role is needed"):
        world.kind.check(world.mapping, {})


async def test_a_role_of_the_engine_that_does_not_exist_leaves_nothing(world: World) -> None:
    anchor = await world.anchor()
    order = world.order(parameters={"role": "unknown"})
    holder = await world.kind.prepare(world.vault, anchor, order)
    if holder is None:
        raise AssertionError("a leased secret needs a holder")
    with pytest.raises(MintFailed, match="unknown role"):
        await world.kind.mint(world.vault, anchor, holder, order)
    assert await is_gone(world.vault, holder.accessor, None)


async def test_an_engine_without_leases_gives_nothing_away(world: World, vault_admin: hvac.Client) -> None:
    mapping: dict[str, object] = {"kind": "leased", "path": "secret/data/app/config"}
    apply_scope(vault_admin, document_of("example", mapping))
    static = dataclasses.replace(world, example=Example("static", "leased", mapping, world.example.works))
    anchor, order = await static.anchor(), static.order()
    holder = await static.kind.prepare(static.vault, anchor, order)
    if holder is None:
        raise AssertionError("a leased secret needs a holder")
    with pytest.raises(MintFailed, match="without a lease") as failed:
        await static.kind.mint(static.vault, anchor, holder, order)
    assert "for the scope" not in repr(failed.value)
    assert await is_gone(static.vault, holder.accessor, None)


async def test_the_engines_own_maximum_counts_too(world: World) -> None:
    anchor = await world.anchor(ttl=timedelta(hours=3))
    minted = await world.mint(anchor, world.order(ttl=timedelta(hours=2), max_ttl=timedelta(hours=3)))
    assert minted.expires_at <= world.vault.now() + timedelta(hours=1)


async def test_a_scope_can_rule_renewal_out(world: World, vault_admin: hvac.Client) -> None:
    mapping = {**world.example.mapping, "renewable": False}
    fixed = dataclasses.replace(world, example=dataclasses.replace(world.example, mapping=mapping))
    apply_scope(vault_admin, document_of("example", mapping, world.example.schema))
    minted = await fixed.mint(await fixed.anchor())
    assert not minted.renewable
    assert minted.max_expires_at == minted.expires_at


def users(world: World) -> set[object]:
    with psycopg.connect(superuser(world)) as admin:
        return {name for (name,) in admin.execute("SELECT rolname FROM pg_roles")}


async def test_a_lease_that_vault_cannot_revoke_is_tried_again_until_it_is_gone(world: World) -> None:
    with psycopg.connect(superuser(world), autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS held (a int)")
        minted = await world.mint(await world.anchor())
        accessor, user = str(minted.accessor), str(minted.secret.reveal()["username"])
        # PostgreSQL does not drop a role that something depends on.
        admin.execute(sql.SQL("GRANT SELECT ON held TO {}").format(sql.Identifier(user)))
        assert not await retract(world.vault, accessor, minted.lease_id)
        await until(lambda: token_gone(world, accessor))
        assert not await retract(world.vault, accessor, minted.lease_id)
        assert not await is_gone(world.vault, accessor, minted.lease_id)
        assert user in users(world)

        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
        await until(lambda: retract(world.vault, accessor, minted.lease_id), within=5)
    assert user not in users(world)


async def test_a_lease_that_vault_has_given_up_on_is_revoked_when_the_broker_insists(
    world: World, vault_admin: hvac.Client
) -> None:
    with psycopg.connect(superuser(world), autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS held (a int)")
        minted = await world.mint(await world.anchor())
        accessor, lease, user = str(minted.accessor), minted.lease_id, str(minted.secret.reveal()["username"])
        admin.execute(sql.SQL("GRANT SELECT ON held TO {}").format(sql.Identifier(user)))

        async def given_up() -> bool:
            # Each time somebody asks uses up one of Vault's own attempts.
            await retract(world.vault, accessor, lease)
            leases = vault_admin.adapter.get("/v1/sys/leases?type=irrevocable")["data"]["leases"]
            return lease in [one["lease_id"] for one in leases]

        await until(given_up)
        with pytest.raises(MintFailed, match="failed to revoke"):
            await retract(world.vault, accessor, lease, insist=True)

        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
        assert not await retract(world.vault, accessor, lease)
        assert await retract(world.vault, accessor, lease, insist=True)
    assert user not in users(world)


async def token_gone(world: World, accessor: str) -> bool:
    return not await world.vault.knows_token(accessor)


def superuser(world: World) -> str:
    if world.postgres is None:
        raise RuntimeError("no database")
    return world.postgres.dsn()
