import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.attest.key_set import KeyProfile
from broker.attest.key_source import KeySource, open_keys
from broker.attest.settings import KeySettings
from broker.errors import ConfigError, EvidenceInvalid, KeysUnavailable
from tests.fixtures.clock import FakeClock
from tests.unit.attest.authority import Authority
from tests.unit.attest.key_server import KeyServer
from tests.unit.attest.signing import Signer, key_set

OLD, NEW = Signer("ES256", "old", number=1), Signer("ES384", "new", number=2)


@asynccontextmanager
async def _keys(server: KeyServer, clock: FakeClock, **settings: Any) -> AsyncIterator[KeySource]:
    described = KeySettings.model_validate({"url": server.url(), "allow_private": True, **settings})
    keys = open_keys(described, KeyProfile(use="sig"), clock)
    try:
        yield keys
    finally:
        await keys.close()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on sockets
            await asyncio.sleep(0)


async def test_keys_are_fetched_on_first_use_and_kept(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        assert key_server.requests == []
        for _ in range(3):
            assert (await keys.select("old")).key_id == "old"
            await keys.check()
    assert len(key_server.requests) == 1


async def test_everybody_waits_for_the_same_fetch(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    key_server.gate.clear()
    async with _keys(key_server, clock) as keys:
        waiting = [asyncio.create_task(keys.select("old")) for _ in range(50)]
        await _until(lambda: len(key_server.requests) == 1)
        waiting[0].cancel()
        key_server.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError), "whoever goes away"
    assert all(not isinstance(result, BaseException) for result in results[1:]), "takes nobody along"
    assert len(key_server.requests) == 1


async def test_flood_of_unknown_keys(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        for period in (1, 2):
            clock.advance(timedelta(seconds=30))
            for number in range(50):
                with pytest.raises(EvidenceInvalid, match="does not have"):
                    await keys.select(f"unknown-{number}")
            assert len(key_server.requests) == 1 + period


async def test_new_key_is_found_at_once(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        generation = keys.generation
        key_server.body = key_set(OLD, NEW)
        with pytest.raises(EvidenceInvalid, match="does not have"):
            await keys.select("new")
        clock.advance(timedelta(seconds=30))
        assert (await keys.select("new")).key_id == "new"
        assert keys.generation == generation + 1


async def test_token_without_kid_causes_no_fetch(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD, NEW)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        clock.advance(timedelta(seconds=30))
        with pytest.raises(EvidenceInvalid, match=r"names no key \(kid\), and its issuer has 2"):
            await keys.select(None)
        assert len(key_server.requests) == 1


async def test_due_keys_are_fetched_in_the_background(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        generation = keys.generation
        key_server.body = key_set(NEW)
        key_server.gate.clear()
        clock.advance(timedelta(minutes=10))
        assert (await keys.select("old")).key_id == "old", "nobody waits"
        key_server.gate.set()
        await _until(lambda: keys.generation > generation)
        with pytest.raises(EvidenceInvalid, match="does not have"):
            await keys.select("old")
        assert len(key_server.requests) == 2


async def test_unchanged_keys_keep_their_generation(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        generation = keys.generation
        clock.advance(timedelta(minutes=20))
        await keys.check()
        assert len(key_server.requests) == 2
        assert keys.generation == generation


async def test_keys_that_nobody_used_for_long_are_not_trusted_before_a_fetch(
    key_server: KeyServer, clock: FakeClock
) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        key_server.body = key_set(NEW)
        clock.advance(timedelta(minutes=20))
        with pytest.raises(EvidenceInvalid, match="does not have"):
            await keys.select("old")


@pytest.mark.parametrize("failure", ["status", "not json", "no key set"])
async def test_last_good_keys_until_they_are_too_old(key_server: KeyServer, clock: FakeClock, failure: str) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        match failure:
            case "status":
                key_server.status = 503
            case "not json":
                key_server.body = b"<html>"
            case _:
                key_server.body = b'{"keys": {}}'
        for _ in range(24 * 6 - 1):
            clock.advance(timedelta(minutes=10))
            assert (await keys.select("old")).key_id == "old"
            with pytest.raises(KeysUnavailable, match=r"status 503|not JSON|not a JSON Web Key Set"):
                await keys.select("new")
        clock.advance(timedelta(minutes=10))
        with pytest.raises(KeysUnavailable):
            await keys.select("old")
        with pytest.raises(KeysUnavailable):
            await keys.check()
        key_server.status, key_server.body = 200, key_set(OLD)
        clock.advance(timedelta(minutes=1))
        assert (await keys.select("old")).key_id == "old"


async def test_nobody_waits_again_and_again_for_an_issuer_that_is_away(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        key_server.status = 500
        clock.advance(timedelta(hours=1))
        await keys.select("old")
        assert len(key_server.requests) == 2, "once"
        key_server.gate.clear()
        clock.advance(timedelta(hours=1))
        assert (await keys.select("old")).key_id == "old", "and then not again"


async def test_before_the_first_success(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.status = 500
    async with _keys(key_server, clock) as keys:
        with pytest.raises(KeysUnavailable, match="status 500") as caught:
            await keys.select("old")
        assert caught.value.retry_after == timedelta(seconds=30)
        clock.advance(timedelta(seconds=10))
        with pytest.raises(KeysUnavailable, match="status 500") as caught:
            await keys.check()
        assert caught.value.retry_after == timedelta(seconds=20)
        assert len(key_server.requests) == 1
        key_server.status, key_server.body = 200, key_set(OLD)
        clock.advance(timedelta(seconds=20))
        assert (await keys.select("old")).key_id == "old"


async def test_issuer_that_withdraws_all_keys(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.body = key_set(OLD)
    async with _keys(key_server, clock) as keys:
        await keys.check()
        key_server.body = key_set()
        clock.advance(timedelta(minutes=20))
        with pytest.raises(EvidenceInvalid, match="does not have"):
            await keys.select("old")


async def test_closing_ends_what_is_under_way(key_server: KeyServer, clock: FakeClock) -> None:
    key_server.gate.clear()
    async with _keys(key_server, clock) as keys:
        waiting = asyncio.create_task(keys.select("old"))
        await _until(lambda: len(key_server.requests) == 1)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_closing_what_was_never_used(key_server: KeyServer, clock: FakeClock) -> None:
    async with _keys(key_server, clock) as keys:
        keys.reload()
        assert keys.generation == 0


async def test_authorities_are_read_at_start_and_on_reload(
    key_server: KeyServer, clock: FakeClock, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match="no usable CA bundle"):
        async with _keys(key_server, clock, ca_file=str(file)):
            pass
    file.write_bytes(Authority().pem)
    async with _keys(key_server, clock, ca_file=str(file)) as keys:
        keys.reload()
        file.write_text("nonsense")
        with pytest.raises(ConfigError, match="no usable CA bundle"):
            keys.reload()
        await keys.check()


def test_settings_that_name_no_source(clock: FakeClock) -> None:
    with pytest.raises(TypeError):
        open_keys(KeySettings.model_construct(file=None, url=None), KeyProfile(use="sig"), clock)
