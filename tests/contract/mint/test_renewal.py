"""Renewals that Vault answers oddly."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker import config
from broker.errors import ConfigError, IssuanceEnded, NotRenewable, VaultUnavailable
from broker.mint.children import renew_child
from broker.mint.replies import VaultRefused
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Issuance, IssuanceState, Revocability
from broker.secret import Secret
from tests.contract.mint.world import Token
from tests.fakes.vault import FakeVault, fake_vault, replaced
from tests.fixtures.clock import FakeClock

TOKEN = "auth/token/renew-accessor"
LEASE = "sys/leases/renew"
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeVault]:
    async with fake_vault() as vault:
        vault.faults = {
            TOKEN: replaced(200, {"auth": {"lease_duration": 600}}),
            LEASE: replaced(200, {"lease_duration": 600}),
        }
        yield vault


@pytest.fixture
async def vault(fake: FakeVault, clock: FakeClock) -> AsyncIterator[VaultClient]:
    client = VaultClient(settings(fake.address), Token(Secret("s.own")), clock)
    yield client
    await client.close()


def settings(address: str, ca_file: Path | None = None) -> config.Vault:
    auth = config.TokenFileAuth(kind="token_file", file=Path("unused"))
    return config.Vault(address=address, ca_file=ca_file, auth=auth)


def issuance(now: datetime, *, left: timedelta = 5 * MINUTE, renewable: bool = True) -> Issuance:
    return Issuance(
        id="id",
        task_id="task",
        anchor_id="anchor",
        agent="agent",
        scope="scope",
        scope_version=1,
        kind="leased",
        parameters={},
        state=IssuanceState.ACTIVE,
        revocability=Revocability.INDIVIDUAL,
        renewable=renewable,
        created_at=now,
        expires_at=now + MINUTE,
        max_expires_at=now + left,
        fingerprint="",
        accessor="accessor",
        lease_id="database/creds/app/1",
    )


async def test_never_beyond_the_maximum_whatever_vault_says(vault: VaultClient, clock: FakeClock) -> None:
    assert await renew_child(vault, issuance(clock.now()), 10 * MINUTE) == clock.now() + 5 * MINUTE


@pytest.mark.parametrize("shorter", [TOKEN, LEASE])
async def test_the_shorter_of_holder_and_lease_counts(
    fake: FakeVault, vault: VaultClient, clock: FakeClock, shorter: str
) -> None:
    seconds = {"lease_duration": 30}
    fake.faults[shorter] = replaced(200, {"auth": seconds} if shorter == TOKEN else dict(seconds))
    assert await renew_child(vault, issuance(clock.now()), 2 * MINUTE) == clock.now() + timedelta(seconds=30)


@pytest.mark.parametrize("left", [timedelta(0), timedelta(milliseconds=999), -MINUTE])
async def test_at_the_maximum_nothing_is_asked(
    fake: FakeVault, vault: VaultClient, clock: FakeClock, left: timedelta
) -> None:
    with pytest.raises(NotRenewable, match="maximum"):
        await renew_child(vault, issuance(clock.now(), left=left), MINUTE)
    assert fake.requests == []


async def test_what_is_not_renewable_is_not_asked_for(fake: FakeVault, vault: VaultClient, clock: FakeClock) -> None:
    with pytest.raises(NotRenewable):
        await renew_child(vault, issuance(clock.now(), renewable=False), MINUTE)
    assert fake.requests == []


@pytest.mark.parametrize(
    ("path", "words", "error"),
    [
        (TOKEN, "invalid accessor", IssuanceEnded),
        (LEASE, "lease not found", IssuanceEnded),
        (TOKEN, "invalid request", NotRenewable),
        (LEASE, "lease is not renewable", NotRenewable),
    ],
)
async def test_refusals_say_whether_it_has_ended(
    fake: FakeVault, vault: VaultClient, clock: FakeClock, path: str, words: str, error: type[Exception]
) -> None:
    fake.faults[path] = replaced(400, {"errors": [words]})
    with pytest.raises(error, match=words):
        await renew_child(vault, issuance(clock.now()), MINUTE)


@pytest.mark.parametrize("path", [TOKEN, LEASE])
@pytest.mark.parametrize("body", [{}, {"auth": {}, "lease_duration": 0}, {"auth": {"lease_duration": True}}], ids=str)
async def test_a_renewal_without_an_end_is_in_doubt(
    fake: FakeVault, vault: VaultClient, clock: FakeClock, path: str, body: dict[str, object]
) -> None:
    fake.faults[path] = replaced(200, body)
    with pytest.raises(VaultUnavailable, match="for how long"):
        await renew_child(vault, issuance(clock.now()), MINUTE)


@pytest.mark.parametrize(
    ("path", "gone"), [("auth/token/revoke-accessor", "invalid accessor"), ("sys/leases/revoke", "invalid lease")]
)
async def test_revoking_tells_gone_from_forbidden(fake: FakeVault, vault: VaultClient, path: str, gone: str) -> None:
    fake.faults = {path: replaced(400, {"errors": [gone]})}
    assert await retract(vault, "accessor", "lease")
    fake.leases.add("lease")
    fake.faults = {path: replaced(403, {"errors": ["permission denied"]})}
    with pytest.raises(VaultRefused):
        await retract(vault, "accessor", "lease")


async def test_what_vault_half_revoked_is_pending_and_its_lease_goes_all_the_same(
    fake: FakeVault, vault: VaultClient
) -> None:
    fake.leases.add("lease")
    fake.faults["auth/token/revoke-accessor"] = replaced(400, {"errors": ["token not found"]})
    fake.faults["auth/token/lookup-accessor"] = replaced(200, {"data": {"num_uses": -1}})
    assert not await retract(vault, "accessor", "lease")
    assert fake.leases == set()
    fake.faults = {}
    assert await retract(vault, "accessor", "lease")


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"vault\.ca_file: .*ca\.pem"):
        VaultClient(settings("https://127.0.0.1:1", file), Token(Secret("s.own")), FakeClock())
