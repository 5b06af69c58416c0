"""A Vault that is sealed and comes back, and books in which a lost anchor is found."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import hvac
import pytest

from broker.clock import SystemClock
from broker.dev.openbao import OpenBao
from broker.errors import MintFailed, VaultUnavailable
from broker.ids import new_id
from broker.mint.anchor import create_anchor
from broker.mint.naming import BROKER_POLICY
from broker.mint.provision import apply_scope, apply_setup
from broker.mint.reap import look_up_all
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Anchor
from tests.contract.mint.world import Token, document_of, until, vault_settings
from tests.fixtures.openbao import make_token

READ: dict[str, object] = {"kind": "vault_token", "rules": [{"path": "secret/data/a", "capabilities": ["read"]}]}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server of this module's own, which it may seal."""
    with OpenBao.start(tmp_path_factory.mktemp("sealed")) as server:
        apply_setup(server.client())
        yield server


@pytest.fixture
async def vault(own: OpenBao) -> AsyncIterator[VaultClient]:
    token = make_token(own.client(), [BROKER_POLICY])
    client = VaultClient(vault_settings(own), Token(token), SystemClock())
    yield client
    await client.close()


def provision(admin: hvac.Client) -> str:
    return apply_scope(admin, document_of("outage", READ))[1].name


async def new_anchor(vault: VaultClient, role: str, ttl: timedelta = timedelta(minutes=5)) -> Anchor:
    return await create_anchor(vault, anchor_id=new_id(), task_id=new_id(), role=role, policy=role, ttl=ttl)


async def test_a_sealed_vault_is_unavailable_and_serves_again_when_unsealed(own: OpenBao, vault: VaultClient) -> None:
    role = provision(own.client())
    anchor = await new_anchor(vault, role)
    await vault.check()
    own.seal()
    try:
        with pytest.raises(VaultUnavailable):
            await new_anchor(vault, role)
        with pytest.raises(VaultUnavailable):
            await retract(vault, anchor.accessor, None)
        with pytest.raises(VaultUnavailable, match="sealed"):
            await vault.check()
    finally:
        own.unseal()
    await vault.check()
    assert await retract(vault, anchor.accessor, None)


async def test_a_scope_that_is_not_provisioned_mints_nothing(vault: VaultClient) -> None:
    with pytest.raises(MintFailed, match="unknown role"):
        await new_anchor(vault, "credbroker-nowhere-0123456789ab")


async def test_an_anchor_lives_no_longer_than_its_role_allows(own: OpenBao, vault: VaultClient) -> None:
    anchor = await new_anchor(vault, provision(own.client()), ttl=timedelta(days=30))
    assert anchor.expires_at <= vault.now() + timedelta(hours=24)


async def test_an_anchor_ends_by_itself(own: OpenBao, vault: VaultClient) -> None:
    anchor = await new_anchor(vault, provision(own.client()), ttl=timedelta(seconds=2))

    async def gone() -> bool:
        return not await vault.knows_token(anchor.accessor)

    await until(gone, within=20)


async def test_an_anchor_cannot_be_prolonged(own: OpenBao, vault: VaultClient) -> None:
    anchor = await new_anchor(vault, provision(own.client()))
    with pytest.raises(MintFailed, match="invalid request"):
        await vault.renew_token(anchor.accessor, 3600)


async def test_a_brokers_own_tokens_are_told_from_all_others(
    provisioned: OpenBao, vault_admin: hvac.Client, broker_token: Token, reaper_token: Token
) -> None:
    settings = vault_settings(provisioned)
    broker = VaultClient(settings, broker_token, SystemClock(), "this")
    another = VaultClient(settings, broker_token, SystemClock(), "that")
    reaper = VaultClient(settings, reaper_token, SystemClock())
    try:
        role = provision(vault_admin)
        own = [await new_anchor(broker, role) for _ in range(20)]
        others = {(await new_anchor(client, role)).accessor for client in (another,)}
        dead = own.pop()
        assert await retract(reaper, dead.accessor, None)

        found = await look_up_all(reaper, [*(await reaper.list_accessors()), dead.accessor], "this")

        assert {(token.accessor, token.anchor_id, token.issuance_id) for token in found.own} == {
            (anchor.accessor, anchor.id, None) for anchor in own
        }
        assert all(abs(reaper.now() - token.created_at) < timedelta(minutes=1) for token in found.own)
        assert others < found.foreign
        assert dead.accessor not in found.foreign
        with pytest.raises(MintFailed, match="permission denied"):
            await broker.list_accessors()
    finally:
        for client in (broker, another, reaper):
            await client.close()
