"""Keys that an issuer publishes at a URL, and when they are fetched again."""

import asyncio
import ssl
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker.attest.fetch import fetch
from broker.attest.jwk import VerificationKey
from broker.attest.key_set import KeyProfile, KeySet, parse_key_set
from broker.attest.settings import KeySettings
from broker.clock import Clock
from broker.errors import ConfigError, KeysUnavailable

# How many refresh times a set may be old before callers wait for the next one.
_PATIENCE: Final = 2


class UrlKeys:
    """Keys from a URL.

    A set is fetched on first use. Past ``refresh`` it is fetched again in the
    background; well past it, callers wait for that once. An unknown ``kid``
    has the set fetched as well. No two fetches start within ``cooldown``, and
    everybody who waits does so for the same one. While fetching fails, the last
    good set stays in use for ``max_stale``.
    """

    def __init__(self, url: str, settings: KeySettings, profile: KeyProfile, clock: Clock) -> None:
        self._url = url
        self._settings = settings
        self._profile = profile
        self._clock = clock
        self._tls = _tls_context(settings.ca_file)
        self._keys: KeySet | None = None
        self._digest = b""
        self._loaded_at = 0.0
        self._next_attempt = clock.monotonic()
        self._failure = ""
        self._fetching: asyncio.Task[None] | None = None
        self.generation = 0

    async def select(self, key_id: str | None) -> VerificationKey:
        """See `broker.attest.key_source.KeySource`."""
        keys = await self._current()
        if key_id is not None and key_id not in keys:
            await self._refresh()
            if self._failure:
                raise self._unavailable()
            keys = await self._current()
        return keys.select(key_id)

    async def check(self) -> None:
        """See `broker.attest.key_source.KeySource`."""
        await self._current()

    def reload(self) -> None:
        """See `broker.attest.key_source.KeySource`: its own CA bundle is read again, the system's is not."""
        if self._settings.ca_file is not None:
            self._tls = _tls_context(self._settings.ca_file)

    async def close(self) -> None:
        """See `broker.attest.key_source.KeySource`."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _current(self) -> KeySet:
        settings = self._settings
        if self._younger_than(settings.max_stale) is None:
            await self._refresh()
        elif self._younger_than(settings.refresh) is None:
            fetching = self._start()
            overdue = self._younger_than(settings.refresh * _PATIENCE) is None
            if fetching is not None and overdue and not self._failure:
                await asyncio.shield(fetching)
        keys = self._younger_than(settings.max_stale)
        if keys is None:
            raise self._unavailable()
        return keys

    async def _refresh(self) -> None:
        """Wait for a fetch, unless it is too early for one."""
        fetching = self._start()
        if fetching is not None:
            # One caller that goes away must not take the others' fetch along.
            await asyncio.shield(fetching)

    def _start(self) -> asyncio.Task[None] | None:
        """Return the running fetch, or a new one, or None while it is too early."""
        if self._fetching is None or self._fetching.done():
            if self._clock.monotonic() < self._next_attempt:
                return None
            self._next_attempt = self._clock.monotonic() + self._settings.cooldown.total_seconds()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            data = await fetch(self._url, tls=self._tls, allow_private=self._settings.allow_private)
            keys = parse_key_set(data, self._profile)
        except KeysUnavailable as error:
            self._failure = error.detail
            return
        except ValueError as error:
            self._failure = f"{self._url}: {error}"
            return
        self._failure = ""
        self._loaded_at = self._clock.monotonic()
        digest = sha256(data).digest()
        if digest != self._digest:
            self._keys, self._digest = keys, digest
            self.generation += 1

    def _younger_than(self, age: timedelta) -> KeySet | None:
        return self._keys if self._clock.monotonic() - self._loaded_at < age.total_seconds() else None

    def _unavailable(self) -> KeysUnavailable:
        wait = max(0.0, self._next_attempt - self._clock.monotonic())
        return KeysUnavailable(self._failure or f"{self._url}: not fetched", retry_after=timedelta(seconds=wait))


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{ca_file}: is no usable CA bundle: {error}") from None
