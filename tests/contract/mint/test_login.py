"""The broker's own identity: obtained, kept alive and replaced, on a real Vault with time held in hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import hvac
import pytest

from broker import config
from broker.dev.openbao import OpenBao
from broker.errors import VaultUnavailable
from broker.mint.login import TICK_SECONDS, VERIFY_SECONDS, VaultLogin
from broker.mint.naming import BROKER_POLICY
from broker.mint.replies import VaultRefused
from broker.mint.vault import VaultClient
from broker.secret import Secret
from tests.contract.mint.world import until
from tests.fakes.vault import fake_vault, raw, replaced
from tests.fixtures.clock import FakeClock
from tests.fixtures.openbao import make_token, write_token_file

Pass = Callable[[float], Awaitable[None]]
LOOKUP_SELF = "auth/token/lookup-self"


@asynccontextmanager
async def logged_in(settings: config.Vault, auth: config.VaultAuth, clock: FakeClock) -> AsyncIterator[VaultLogin]:
    login = VaultLogin(settings, auth, clock)
    await login.start()
    try:
        yield login
    finally:
        await login.stop()


@asynccontextmanager
async def calling(settings: config.Vault, login: VaultLogin, clock: FakeClock) -> AsyncIterator[VaultClient]:
    client = VaultClient(settings, login, clock)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def let_pass(clock: FakeClock) -> Pass:
    """Lets seconds pass, and waits until what was due is done."""

    async def asleep() -> bool:
        return clock.sleepers == 1

    async def advance(seconds: float) -> None:
        await until(asleep)
        clock.advance(seconds)
        await until(asleep)

    return advance


def settings_of(server: OpenBao, auth: config.VaultAuth) -> config.Vault:
    return config.Vault(address=server.address, ca_file=server.ca_file, auth=auth, timeout=timedelta(seconds=5))


def token_file(file: Path) -> config.TokenFileAuth:
    return config.TokenFileAuth(kind="token_file", file=file)


@pytest.fixture
def approle(provisioned: OpenBao, vault_admin: hvac.Client, tmp_path: Path) -> config.AppRoleAuth:
    admin = vault_admin.adapter
    if "approle/" not in admin.get("/v1/sys/auth")["data"]:
        admin.post("/v1/sys/auth/approle", json={"type": "approle"})
    admin.post(
        "/v1/auth/approle/role/broker",
        json={"token_policies": [BROKER_POLICY], "token_ttl": "60s", "token_max_ttl": "100s"},
    )
    secret_id = admin.post("/v1/auth/approle/role/broker/secret-id")["data"]["secret_id"]
    return config.AppRoleAuth(
        kind="approle",
        role_id=admin.get("/v1/auth/approle/role/broker/role-id")["data"]["role_id"],
        secret_id_file=write_token_file(tmp_path, Secret(secret_id + "\n"), "secret-id"),
    )


def ttl_of(admin: hvac.Client, token: Secret[str]) -> int:
    ttl: int = admin.auth.token.lookup(token.reveal())["data"]["ttl"]
    return ttl


async def test_a_token_file_is_read_and_renewed_at_half_its_life(
    provisioned: OpenBao, vault_admin: hvac.Client, tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    token = make_token(vault_admin, [BROKER_POLICY], ttl="40s")
    auth = token_file(write_token_file(tmp_path, token))
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        assert login.token() == token
        await let_pass(15)
        assert "last_renewal" not in vault_admin.auth.token.lookup(token.reveal())["data"]
        await let_pass(10)
        assert "last_renewal" in vault_admin.auth.token.lookup(token.reveal())["data"]
        await let_pass(30)
        assert login.token() == token


async def test_a_new_token_in_the_file_is_taken_up(
    provisioned: OpenBao, vault_admin: hvac.Client, tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    first, second = make_token(vault_admin, [BROKER_POLICY]), make_token(vault_admin, [BROKER_POLICY])
    auth = token_file(write_token_file(tmp_path, first))
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        assert login.token() == first
        write_token_file(tmp_path, second, "new").replace(auth.file)
        await let_pass(1)
        assert login.token() == second


async def test_a_bad_file_does_not_replace_a_good_token_and_a_later_good_one_does(
    provisioned: OpenBao, vault_admin: hvac.Client, tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    first, second = make_token(vault_admin, [BROKER_POLICY]), make_token(vault_admin, [BROKER_POLICY])
    auth = token_file(write_token_file(tmp_path, first))
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        for bad in (Secret("two\nlines"), Secret(""), Secret("x" * 100_000), Secret("s.nobody-knows-this-one")):
            write_token_file(tmp_path, bad)
            await let_pass(20)
            assert login.token() == first
        write_token_file(tmp_path, second)
        await let_pass(20)
        assert login.token() == second


async def test_without_a_file_there_is_no_token_until_it_appears(
    provisioned: OpenBao, vault_admin: hvac.Client, tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    auth = token_file(tmp_path / "later")
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        with pytest.raises(VaultUnavailable, match="No such file"):
            login.token()
        token = make_token(vault_admin, [BROKER_POLICY])
        write_token_file(tmp_path, token, "later")
        await let_pass(2)
        assert login.token() == token


async def test_a_token_that_never_ends_is_good_for_ever(
    provisioned: OpenBao, tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    auth = token_file(write_token_file(tmp_path, provisioned.root_token))
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        await let_pass(1_000_000)
        assert login.token() == provisioned.root_token


async def test_approle_logs_in_and_again_when_renewing_brings_little(
    provisioned: OpenBao,
    vault_admin: hvac.Client,
    approle: config.AppRoleAuth,
    clock: FakeClock,
    let_pass: Pass,
) -> None:
    async with logged_in(settings_of(provisioned, approle), approle, clock) as login:
        first = login.token()
        await let_pass(31)
        assert login.token() == first
        vault_admin.adapter.post(
            "/v1/auth/approle/role/broker",
            json={"token_policies": [BROKER_POLICY], "token_ttl": "10s", "token_max_ttl": "10s"},
        )
        await let_pass(31)
        assert login.token() != first
        assert ttl_of(vault_admin, login.token()) <= 10


async def test_a_revoked_token_is_replaced_soon(
    provisioned: OpenBao, vault_admin: hvac.Client, approle: config.AppRoleAuth, clock: FakeClock, let_pass: Pass
) -> None:
    async with logged_in(settings_of(provisioned, approle), approle, clock) as login:
        first = login.token()
        vault_admin.adapter.post("/v1/auth/token/revoke", json={"token": first.reveal()})
        await let_pass(VERIFY_SECONDS)
        assert login.token() != first


async def test_a_revoked_token_is_replaced_at_once_where_it_is_used(
    provisioned: OpenBao, vault_admin: hvac.Client, approle: config.AppRoleAuth, clock: FakeClock, let_pass: Pass
) -> None:
    settings = settings_of(provisioned, approle)
    async with logged_in(settings, approle, clock) as login, calling(settings, login, clock) as vault:
        first = login.token()
        vault_admin.adapter.post("/v1/auth/token/revoke", json={"token": first.reveal()})
        with pytest.raises(VaultRefused):
            await vault.call("GET", tuple(LOOKUP_SELF.split("/")))
        await let_pass(TICK_SECONDS)
        assert login.token() != first
        await vault.call("GET", tuple(LOOKUP_SELF.split("/")))


async def test_a_token_that_may_not_do_something_is_kept_and_looked_up_no_more_than_each_second(
    tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    async with fake_vault() as vault:
        vault.faults = {
            LOOKUP_SELF: replaced(200, {"data": {"ttl": 1000}}),
            "sys/mounts": replaced(403, {"errors": ["permission denied"]}),
        }
        auth = token_file(write_token_file(tmp_path, Secret("s.own")))
        settings = config.Vault(address=vault.address, auth=auth)

        def looked_up() -> int:
            return sum(path == LOOKUP_SELF for _, path, _ in vault.requests)

        async with logged_in(settings, auth, clock) as login, calling(settings, login, clock) as client:
            first = looked_up()
            for times in range(1, 4):
                for _ in range(5):
                    with pytest.raises(VaultRefused):
                        await client.call("GET", ("sys", "mounts"))
                await let_pass(TICK_SECONDS)
                assert looked_up() - first == times
            with pytest.raises(VaultRefused):
                await client.call("GET", ("sys", "mounts"), token=Secret("s.of-a-task"))
            await let_pass(TICK_SECONDS)
            assert looked_up() - first == 3
            assert login.token() == Secret("s.own")


async def test_a_refused_login_says_so_and_shows_no_secret(
    provisioned: OpenBao, approle: config.AppRoleAuth, clock: FakeClock
) -> None:
    approle.secret_id_file.write_text("canary-secret-id")
    async with logged_in(settings_of(provisioned, approle), approle, clock) as login:
        with pytest.raises(VaultUnavailable, match="Vault refused auth/approle/login") as failed:
            login.token()
    shown = f"{failed.value!r} {failed.value.__cause__!r} {failed.value.__context__!r}"
    assert "canary" not in shown
    assert approle.role_id not in shown


async def test_the_present_token_serves_while_vault_is_away_and_not_a_moment_longer(
    tmp_path: Path, clock: FakeClock, let_pass: Pass
) -> None:
    async with fake_vault() as vault:
        lookup = replaced(200, {"data": {"ttl": 100, "renewable": True}})
        renew = replaced(200, {"auth": {"lease_duration": 100, "renewable": True}})
        vault.faults = {"auth/token/lookup-self": lookup, "auth/token/renew-self": renew}
        auth = token_file(write_token_file(tmp_path, Secret("s.own")))
        async with logged_in(config.Vault(address=vault.address, auth=auth), auth, clock) as login:
            away = raw(502, b"<html>", Content_Type="text/html")
            vault.faults = {"auth/token/lookup-self": away}
            await let_pass(60)
            await let_pass(39)
            assert login.token() == Secret("s.own")
            await let_pass(1)
            with pytest.raises(VaultUnavailable, match="auth/token/lookup-self"):
                login.token()
            vault.faults = {"auth/token/lookup-self": lookup, "auth/token/renew-self": renew}
            await let_pass(15)
            assert login.token() == Secret("s.own")


@pytest.mark.parametrize("renewable", [False, True], ids=["not renewable", "renewal refused"])
async def test_without_renewal_the_file_is_read_again_at_half_its_life(
    tmp_path: Path, clock: FakeClock, let_pass: Pass, renewable: bool
) -> None:
    async with fake_vault() as vault:
        vault.faults = {
            "auth/token/lookup-self": replaced(200, {"data": {"ttl": 50, "renewable": renewable}}),
            "auth/token/renew-self": replaced(403, {"errors": ["permission denied"]}),
        }
        auth = token_file(write_token_file(tmp_path, Secret("s.own")))
        async with logged_in(config.Vault(address=vault.address, auth=auth), auth, clock) as login:
            await let_pass(26)
            await let_pass(30)
            assert login.token() == Secret("s.own")


async def test_an_answer_that_is_not_vaults_gives_no_token(tmp_path: Path, clock: FakeClock) -> None:
    async with fake_vault() as vault:
        secret_id = write_token_file(tmp_path, Secret("canary-secret-id"))
        auth = config.AppRoleAuth(kind="approle", role_id="r", secret_id_file=secret_id)
        for reply in (raw(200, b"<html>", Content_Type="text/html"), replaced(200, {"auth": {"client_token": "a b"}})):
            vault.faults = {"auth/approle/login": reply}
            async with logged_in(config.Vault(address=vault.address, auth=auth), auth, clock) as login:
                with pytest.raises(VaultUnavailable, match=r"auth/approle/login: (status 200 without|the answer)"):
                    login.token()


async def test_retries_back_off(tmp_path: Path, clock: FakeClock, let_pass: Pass) -> None:
    async with fake_vault() as vault:
        vault.faults = {"auth/token/lookup-self": replaced(500, {"errors": ["no"]})}
        auth = token_file(write_token_file(tmp_path, Secret("s.own")))
        async with logged_in(config.Vault(address=vault.address, auth=auth), auth, clock) as login:
            for _ in range(60):
                login.doubt()
                await let_pass(1)
        assert 5 <= len(vault.requests) <= 9


async def test_stopping_forgets_the_token(provisioned: OpenBao, tmp_path: Path, clock: FakeClock) -> None:
    auth = token_file(write_token_file(tmp_path, provisioned.root_token))
    async with logged_in(settings_of(provisioned, auth), auth, clock) as login:
        login.token()
    with pytest.raises(VaultUnavailable):
        login.token()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "vault login"]
