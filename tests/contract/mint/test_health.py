"""How Vault says it is: the real one, and one that is away, sealed, late or talks nonsense."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import hvac
import pytest

from broker import config
from broker.clock import SystemClock
from broker.dev.openbao import OpenBao
from broker.mint.health import examine
from broker.mint.naming import BROKER_POLICY
from broker.mint.vault import VaultClient
from broker.secret import Secret
from tests.contract.mint.world import Token, vault_settings
from tests.fakes.vault import FakeVault, fake_vault, replaced
from tests.fixtures.clock import FakeClock
from tests.fixtures.openbao import make_token

SECRET = "s.canarycanarycanarycanary"


@pytest.fixture
async def fake() -> AsyncIterator[FakeVault]:
    async with fake_vault() as running:
        yield running


@pytest.fixture
async def client(fake: FakeVault, clock: FakeClock) -> AsyncIterator[VaultClient]:
    auth = config.TokenFileAuth(kind="token_file", file=Path("unused"))
    settings = config.Vault(address=fake.address, auth=auth, timeout=timedelta(seconds=1))
    made = VaultClient(settings, Token(Secret(SECRET)), clock)
    yield made
    await made.close()


async def test_a_vault_that_works(vault: VaultClient) -> None:
    found = await examine(vault)
    assert found.problem == ""
    assert found.version[0].isdigit()
    assert found.token_ttl is not None
    assert found.token_ttl > timedelta(minutes=1)
    assert found.clock_difference is not None
    assert abs(found.clock_difference) <= timedelta(seconds=1)


async def test_a_token_that_vault_does_not_know_any_more(provisioned: OpenBao, vault_admin: hvac.Client) -> None:
    token = make_token(vault_admin, [BROKER_POLICY])
    vault_admin.auth.token.revoke(token.reveal())
    client = VaultClient(vault_settings(provisioned), Token(token), SystemClock())
    found = await examine(client)
    await client.close()
    assert "does not accept the broker's token" in found.problem
    assert token.reveal() not in found.problem
    assert found.version


async def test_a_vault_that_is_away(clock: FakeClock) -> None:
    auth = config.TokenFileAuth(kind="token_file", file=Path("unused"))
    away = config.Vault(address="http://127.0.0.1:1", auth=auth, timeout=timedelta(seconds=1))
    client = VaultClient(away, Token(Secret(SECRET)), clock)
    found = await examine(client)
    await client.close()
    assert "GET sys/health" in found.problem
    assert (found.version, found.token_ttl, found.clock_difference) == ("", None, None)


async def test_a_sealed_vault(fake: FakeVault, client: VaultClient) -> None:
    fake.faults["sys/health"] = replaced(503, {"sealed": True, "version": "2.7.2"})
    fake.faults["sys/seal-status"] = replaced(200, {"sealed": True})
    found = await examine(client)
    assert (found.problem, found.version) == ("Vault is sealed", "2.7.2")


async def test_what_makes_no_sense_is_unknown(fake: FakeVault, client: VaultClient) -> None:
    fake.faults["sys/health"] = replaced(200, {"version": 7})
    fake.faults["auth/token/lookup-self"] = replaced(200, {"data": {"ttl": 0}})
    found = await examine(client)
    assert (found.problem, found.version, found.token_ttl) == ("", "", None)


async def test_a_clock_that_is_behind(provisioned: OpenBao, broker_token: Token) -> None:
    clock = FakeClock()  # stands at a moment long past
    client = VaultClient(vault_settings(provisioned), broker_token, clock)
    found = await examine(client)
    await client.close()
    assert found.clock_difference is not None
    assert found.clock_difference > timedelta(days=1)
