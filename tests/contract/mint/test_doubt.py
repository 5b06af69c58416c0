"""Answers that leave it open whether Vault acted, from a Vault that can be told to give them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from broker import config
from broker.clock import SystemClock
from broker.document import ScopeDocument
from broker.errors import BrokerError, ConfigError, MintFailed, VaultAway, VaultUnavailable
from broker.ids import new_id
from broker.mint import KINDS
from broker.mint.anchor import create_anchor
from broker.mint.kind import Minted, Order
from broker.mint.reap import look_up_all
from broker.mint.replies import VaultRefused
from broker.mint.retract import is_gone, retract
from broker.mint.vault import VaultClient
from broker.model import Anchor
from broker.secret import Secret
from tests.contract.mint.world import Token, document_of
from tests.fakes.vault import FakeVault, Fault, Reply, answer, changed, drop, fake_vault, hang, raw, replaced, trickle

CREATE = "auth/token/create"
HOUR = timedelta(hours=1)
RULES = [{"path": "secret/a", "capabilities": ["read"]}]
SERVICE = document_of("x", {"kind": "vault_token", "token": "service", "rules": RULES})
BATCH = document_of("x", {"kind": "vault_token", "rules": RULES})
LEASED = document_of("x", {"kind": "leased", "path": "database/creds/app"})

DOUBTFUL: dict[str, Fault] = {
    "error after acting": replaced(500, {"errors": ["internal error"]}),
    "bad gateway": raw(502, b"<html>bad gateway</html>", Content_Type="text/html"),
    "sealed": replaced(503, {"errors": ["Vault is sealed"]}),
    "too many requests": replaced(429, {"errors": ["request limit"]}),
    "standby": replaced(472, {"errors": []}),
    "performance standby": replaced(473, {"errors": []}),
    "request timeout": replaced(408, {"errors": ["timeout"]}),
    "a proxy's 404": raw(404, b"<html>not found</html>", Content_Type="text/html"),
    "a proxy's 403 in JSON": replaced(403, {"message": "blocked"}),
    "a proxy's welcome": raw(200, b"<html>hello</html>", Content_Type="text/html"),
    "JSON that is no object": raw(200, b'["a"]', Content_Type="application/json"),
    "JSON without an end": raw(200, b'{"auth": {"client_token": ', Content_Type="application/json"),
    "JSON without a bottom": raw(200, b'{"a":' * 100_000, Content_Type="application/json"),
    "a huge number": raw(200, b'{"auth": ' + b"9" * 10_000 + b"}", Content_Type="application/json"),
    "nothing": raw(200, b""),
    "no content": raw(204, b""),
    "no token": replaced(200, {"auth": {}}),
    "too much": raw(200, b" " * (1024 * 1024) + b"{}", Content_Type="application/json"),
    "a redirect": raw(307, b"", Location="/v1/trap"),
    "errors in a success": changed(200, errors=["odd"], auth=None),
    "silence": hang,
    "half an answer": trickle,
    "a cut connection": drop,
}


@pytest.fixture
async def fake() -> AsyncIterator[FakeVault]:
    async with fake_vault() as vault:
        yield vault


@pytest.fixture
async def vault(fake: FakeVault) -> AsyncIterator[VaultClient]:
    client = VaultClient(settings(fake), Token(Secret("s.brokers-own-token-0000")), SystemClock())
    yield client
    await client.close()


@pytest.fixture
async def hasty(fake: FakeVault) -> AsyncIterator[VaultClient]:
    """A client that does not wait long."""
    short = settings(fake).model_copy(update={"timeout": timedelta(milliseconds=500)})
    client = VaultClient(short, Token(Secret("s.brokers-own-token-0000")), SystemClock())
    yield client
    await client.close()


def settings(fake: FakeVault, namespace: str = "") -> config.Vault:
    return config.Vault(
        address=fake.address,
        namespace=namespace,
        auth=config.TokenFileAuth(kind="token_file", file=Path("unused")),
        timeout=timedelta(seconds=20),
    )


def an_anchor() -> Anchor:
    return Anchor("id", "task", "role", "accessor", Secret("s.anchor-0000000000000000"), SystemClock().now() + HOUR)


async def mint(vault: VaultClient, document: ScopeDocument = SERVICE) -> Minted:
    mapping = document.spec.credential
    order = Order("id", "credbroker-x", mapping, {}, timedelta(seconds=60), timedelta(seconds=90))
    kind, anchor = KINDS[mapping.kind], an_anchor()
    return await kind.mint(vault, anchor, await kind.prepare(vault, anchor, order), order)


async def new_anchor(vault: VaultClient) -> Anchor:
    return await create_anchor(vault, anchor_id=new_id(), task_id=new_id(), role="r", policy="r", ttl=HOUR)


# Those that a caller waits for in vain.
ENDLESS = ("silence", "half an answer")
# Those in which Vault did not even look at the request.
AWAY = ("sealed", "too many requests", "standby", "performance standby", "a redirect")


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_a_doubtful_answer_means_perhaps_minted(
    fake: FakeVault, vault: VaultClient, hasty: VaultClient, name: str
) -> None:
    fake.faults = {CREATE: DOUBTFUL[name], f"{CREATE}/r": DOUBTFUL[name]}
    for make in (mint, new_anchor):
        before = time.monotonic()
        with pytest.raises(VaultUnavailable) as failed:
            await make(hasty if name in ENDLESS else vault)
        assert time.monotonic() - before < 5
        assert "canary" not in f"{failed.value!r} {failed.value.__cause__!r}"
        assert isinstance(failed.value, VaultAway) is (name in AWAY)
    assert all(path != "trap" for _, path, _ in fake.requests)


async def test_being_sealed_in_the_middle_of_a_request_leaves_doubt(fake: FakeVault, vault: VaultClient) -> None:
    for words in (["error persisting accessor: Vault is sealed"], ["Vault is sealed", "more"]):
        fake.faults = {CREATE: replaced(503, {"errors": words})}
        with pytest.raises(VaultUnavailable) as failed:
            await mint(vault)
        assert not isinstance(failed.value, VaultAway)


@pytest.mark.parametrize("fault", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_a_doubtful_answer_never_confirms(
    fake: FakeVault, vault: VaultClient, hasty: VaultClient, fault: Fault
) -> None:
    anchor = await new_anchor(vault)
    fake.faults = {"auth/token/lookup-accessor": fault}
    try:
        gone = await retract(hasty, anchor.accessor, None, insist=True)
    except BrokerError:
        gone = False
    assert not gone
    fake.faults = {}
    assert await retract(vault, anchor.accessor, None)


@pytest.mark.parametrize("name", [name for name in DOUBTFUL if name != "no content"])
async def test_only_vaults_own_word_makes_looking_superfluous(
    fake: FakeVault, vault: VaultClient, hasty: VaultClient, name: str
) -> None:
    anchor = await new_anchor(vault)
    known = replaced(200, {"data": {"num_uses": -1}})
    fake.faults = {"auth/token/revoke-accessor": DOUBTFUL[name], "auth/token/lookup-accessor": known}
    try:
        gone = await retract(hasty, anchor.accessor, None)
    except BrokerError:
        gone = False
    assert not gone


async def test_after_a_failed_attempt_vaults_word_is_checked(fake: FakeVault, vault: VaultClient) -> None:
    anchor = await new_anchor(vault)
    fake.faults = {"auth/token/lookup-accessor": replaced(200, {"data": {"num_uses": -1}})}
    assert not await retract(vault, anchor.accessor, None, insist=True)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_words_of_refusal_without_the_right_ones_do_not_confirm(
    fake: FakeVault, vault: VaultClient, status: int
) -> None:
    fake.faults = {"auth/token/lookup-accessor": replaced(status, {"errors": ["permission denied"]})}
    with pytest.raises(VaultRefused):
        await is_gone(vault, "accessor", None)
    fake.faults = {"sys/leases/lookup": replaced(status, {"errors": []})}
    with pytest.raises(VaultRefused):
        await is_gone(vault, "accessor", "lease")


@pytest.mark.parametrize(("status", "error"), [(400, MintFailed), (500, VaultUnavailable), (200, VaultUnavailable)])
async def test_a_token_beside_an_error_is_revoked(
    fake: FakeVault, vault: VaultClient, status: int, error: type[BrokerError]
) -> None:
    fake.faults = {CREATE: changed(status, errors=["failed"]), f"{CREATE}/r": changed(status, errors=["failed"])}
    for make in (mint, new_anchor):
        with pytest.raises(error, match="failed"):
            await make(vault)
    assert fake.tokens == {}
    assert sum(path == "auth/token/revoke-accessor" for _, path, _ in fake.requests) == 2


async def test_a_token_beside_an_error_that_cannot_be_revoked_is_in_doubt(fake: FakeVault, vault: VaultClient) -> None:
    fake.faults = {
        CREATE: changed(400, errors=["failed"]),
        "auth/token/revoke-accessor": replaced(500, {"errors": ["no"]}),
    }
    with pytest.raises(VaultUnavailable, match="may be alive"):
        await mint(vault)
    with pytest.raises(VaultUnavailable, match="may be alive"):
        await mint(vault, BATCH)


async def test_errors_and_tokens_without_end_come_to_an_end(fake: FakeVault, vault: VaultClient) -> None:
    odd = replaced(400, {"errors": ["odd"], "auth": {"client_token": "s.x", "accessor": "again"}, "lease_id": "again"})
    paths = ("auth/token/revoke-accessor", "auth/token/lookup-accessor", "sys/leases/revoke", "sys/leases/lookup")
    fake.faults = {CREATE: changed(400, errors=["failed"])} | dict.fromkeys(paths, odd)
    with pytest.raises(VaultUnavailable, match="may be alive"):
        await mint(vault)
    assert len(fake.requests) < 5


async def test_a_lease_beside_an_error_goes_with_its_holder(fake: FakeVault, vault: VaultClient) -> None:
    fake.faults = {"database/creds/app": changed(400, errors=["failed"])}
    with pytest.raises(MintFailed, match="failed"):
        await mint(vault, LEASED)
    assert fake.leases == set()
    assert fake.tokens == {}


async def test_a_lease_that_vault_is_silent_about_keeps_its_holder_for_revocation(
    fake: FakeVault, vault: VaultClient
) -> None:
    fake.faults = {"database/creds/app": drop}
    with pytest.raises(VaultUnavailable):
        await mint(vault, LEASED)
    assert len(fake.tokens) == 1


@pytest.mark.parametrize(
    "auth",
    [
        {"policies": ["credbroker-x", "root"]},
        {"policies": ["credbroker-x", "default"]},
        {"policies": []},
        {"token_type": "batch"},
        {"orphan": True},
        {"lease_duration": 61},
        {"lease_duration": 0},
        {"client_token": "s.with\nnewline"},
    ],
    ids=str,
)
async def test_another_token_than_asked_for_is_revoked(
    fake: FakeVault, vault: VaultClient, auth: dict[str, object]
) -> None:
    async def altered(request: web.Request, reply: Reply) -> web.StreamResponse:
        made = reply[1]["auth"]
        if not isinstance(made, dict):
            raise TypeError("no auth")
        return answer(200, {"auth": made | auth})

    fake.faults = {CREATE: altered}
    with pytest.raises(MintFailed, match="another token than asked for"):
        await mint(vault)
    assert fake.tokens == {}


async def test_vaults_words_are_shortened_and_cleaned(fake: FakeVault, vault: VaultClient) -> None:
    leaky = "hvs.CAESIJfsmYhAhKqAeyZ1CIc5VZjG"
    words = [f"bad\r\n\x1b[31mtoken {leaky} and s.abcdefghijklmnopqrstuvwx!", "x" * 10_000, 7, *["more"] * 50]
    fake.faults = {CREATE: replaced(400, {"errors": words})}
    with pytest.raises(MintFailed) as failed:
        await mint(vault)
    detail = failed.value.detail
    assert "bad [31mtoken *** and ***!" in detail
    assert detail.isprintable()
    assert len(detail) < 2000


async def test_what_is_sent(fake: FakeVault) -> None:
    client = VaultClient(settings(fake, "team/a"), Token(Secret("s.own")), SystemClock())
    try:
        await client.check()
        await mint(client)
    finally:
        await client.close()
    seal, own, child = (headers for _, _, headers in fake.requests)
    assert "X-Vault-Token" not in seal
    assert own["X-Vault-Token"] == "s.own"
    assert child["X-Vault-Token"] == "s.anchor-0000000000000000"
    assert {headers["X-Vault-Namespace"] for headers in (seal, own, child)} == {"team/a"}
    assert len(fake.connections) == 1


async def test_no_proxy_of_the_environment_sees_anything(
    fake: FakeVault, vault: VaultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    await vault.check()


@pytest.mark.parametrize("segment", ["..", ".", "", "a/b", "a%2fb", "a?b", "a#b", "a b", "a\nb", "é", "a" * 257])
async def test_no_path_leaves_with_anything_but_plain_segments(
    fake: FakeVault, vault: VaultClient, segment: str
) -> None:
    with pytest.raises(ValueError, match="must be 1 to 256 characters"):
        await vault.call("GET", ("secret", segment))
    assert fake.requests == []


@pytest.mark.parametrize("token", ["s.canary\r\nX-Vault-Namespace: other", "s.canary\x00", "s.canaryé"], ids=repr)
async def test_no_header_leaves_with_anything_but_printable_text(
    fake: FakeVault, vault: VaultClient, token: str
) -> None:
    with pytest.raises(ValueError, match="X-Vault-Token must be printable") as refused:
        await vault.call("GET", ("secret", "a"), token=Secret(token))
    assert "canary" not in str(refused.value)
    assert fake.requests == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://[127.0.0.1:80"])
async def test_an_address_that_is_no_url(fake: FakeVault, address: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"vault.address: {address}")):
        VaultClient(settings(fake).model_copy(update={"address": address}), Token(Secret("s.own")), SystemClock())


async def test_an_address_with_a_path(fake: FakeVault) -> None:
    behind = settings(fake).model_copy(update={"address": f"{fake.address}/front/"})
    client = VaultClient(behind, Token(Secret("s.own")), SystemClock())
    try:
        await client.call("GET", ("secret", "a"))
    finally:
        await client.close()
    assert [path for _, path, _ in fake.requests] == ["/front/v1/secret/a"]


async def test_a_sealed_vault_fails_the_check(fake: FakeVault, vault: VaultClient) -> None:
    fake.faults = {"sys/seal-status": replaced(200, {"sealed": True})}
    with pytest.raises(VaultUnavailable, match="sealed"):
        await vault.check()
    fake.faults = {"auth/token/lookup-self": replaced(403, {"errors": ["permission denied"]})}
    with pytest.raises(VaultUnavailable, match="does not accept the broker's token"):
        await vault.check()


async def test_a_vault_that_is_not_there(unused_tcp_port: int) -> None:
    address = config.Vault(
        address=f"http://127.0.0.1:{unused_tcp_port}", auth=config.TokenFileAuth(kind="token_file", file=Path("unused"))
    )
    client = VaultClient(address, Token(Secret("s.own")), SystemClock())
    try:
        with pytest.raises(VaultAway, match="Cannot connect"):
            await client.check()
    finally:
        await client.close()


async def test_many_at_once_share_the_pool(fake: FakeVault, vault: VaultClient) -> None:
    minted = await asyncio.gather(*(mint(vault) for _ in range(300)))
    assert len({one.accessor for one in minted}) == 300
    assert len(fake.connections) <= 128


async def test_reaping_ends_with_the_first_failure(fake: FakeVault, vault: VaultClient) -> None:
    fake.faults = {
        "auth/token/accessors": replaced(200, {"data": {"keys": [f"a{n}" for n in range(100)]}}),
        "auth/token/lookup-accessor": replaced(500, {"errors": ["no"]}),
    }
    with pytest.raises(VaultUnavailable):
        await look_up_all(vault, await vault.list_accessors(), "here")
    assert len(fake.requests) < 40


LOOKUP = "auth/token/lookup-accessor"
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}


async def test_a_token_that_ends_while_it_is_looked_up_is_gone(fake: FakeVault, vault: VaultClient) -> None:
    anchor, other = await new_anchor(vault), await new_anchor(vault)

    async def ending(request: web.Request, reply: Reply) -> web.StreamResponse:
        if (await request.json())["accessor"] != anchor.accessor or not fake.tokens.pop(anchor.accessor, None):
            return answer(*reply)
        return answer(403, DENIED)

    fake.faults = {LOOKUP: ending}

    found = await look_up_all(vault, [anchor.accessor, other.accessor], "here")

    assert found.foreign == {other.accessor}
    assert not found.own


async def test_who_may_not_look_tokens_up_is_told(fake: FakeVault, vault: VaultClient) -> None:
    anchor = await new_anchor(vault)
    fake.faults = {LOOKUP: replaced(403, DENIED)}
    with pytest.raises(VaultRefused, match="permission denied"):
        await vault.knows_token(anchor.accessor)
