"""The broker's own Vault token: obtained, kept alive, and replaced when Vault no longer takes it."""

import asyncio
import contextlib
import math
from dataclasses import dataclass
from typing import Final

import structlog

from broker import config
from broker.clock import Clock
from broker.errors import VaultAway, VaultUnavailable
from broker.mint.credentials import Grant, LoginRefused, source_of
from broker.mint.transport import Transport
from broker.secret import Secret

TICK_SECONDS: Final = 1.0
# A token can be revoked behind the broker's back; this bounds how long that goes unnoticed while nothing is asked.
VERIFY_SECONDS: Final = 30.0
_LONGEST_BACKOFF = 15.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """The token in use, with times on the monotonic clock; None stands for never."""

    token: Secret[str]
    seconds: int | None
    renewable: bool
    half_at: float | None
    expires_at: float | None


class VaultLogin:
    """Keeps one Vault identity logged in. A `broker.mint.vault.TokenSource`. To be made while an event loop runs.

    Args:
        settings: How to reach Vault.
        auth: Which identity.
        clock: Its monotonic side alone counts.
    """

    def __init__(self, settings: config.Vault, auth: config.VaultAuth, clock: Clock) -> None:
        self._clock = clock
        self._transport = Transport(settings, clock)
        self._source = source_of(self._transport, auth)
        self._held: _Held | None = None
        self._problem = "not logged in yet"
        self._failures = 0
        self._due_at = clock.monotonic()
        self._loop: asyncio.Task[None] | None = None

    def token(self) -> Secret[str]:
        """Return the token to use now.

        Raises:
            VaultAway: when there is none, or it has expired.
        """
        held = self._held
        if held is None or (held.expires_at is not None and held.expires_at <= self._clock.monotonic()):
            raise VaultAway(f"the broker has no Vault token: {self._problem}")
        return held.token

    def doubt(self) -> None:
        """Look at the next tick whether Vault still takes the token, which it may have refused."""
        if self._failures == 0:
            self._due_at = min(self._due_at, self._clock.monotonic())

    @property
    def seconds_left(self) -> float:
        """How long the token in use lives on: 0 without one, infinity for one without end."""
        held = self._held
        if held is None:
            return 0.0
        return math.inf if held.expires_at is None else max(0.0, held.expires_at - self._clock.monotonic())

    async def start(self) -> None:
        """Log in, and keep the token fresh from now on.

        A Vault that is away is no error: logging in is tried again until it
        works, and `token` says why there is none.
        """
        await self._refresh()
        self._loop = asyncio.create_task(self._run(), name="vault login")

    async def stop(self) -> None:
        """Stop keeping the token fresh, and forget it."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        await self._transport.close()
        self._held = None

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(TICK_SECONDS)
            replaced = self._failures == 0 and self._source.changed()
            if replaced or self._clock.monotonic() >= self._due_at:
                await self._refresh()

    async def _refresh(self) -> None:
        before = self._clock.monotonic()
        try:
            self._held = await self._advance(self._held, before)
        except (LoginRefused, VaultUnavailable) as error:
            self._retry(before, str(error))
            return
        self._failures = 0
        half_at = self._held.half_at
        self._due_at = before + VERIFY_SECONDS if half_at is None else min(half_at, before + VERIFY_SECONDS)

    def _retry(self, before: float, problem: str) -> None:
        self._problem = problem
        self._due_at = before + min(2.0**self._failures, _LONGEST_BACKOFF)
        self._failures += 1
        log.warning("no fresh Vault token, will retry", problem=problem)

    async def _advance(self, held: _Held | None, before: float) -> _Held:
        """Return the token to hold next."""
        source = self._source
        if held is None or source.changed():
            return _hold(await source.obtain(), before)
        try:
            await source.look_up(held.token)
        except LoginRefused:
            self._held = None
            return _hold(await source.obtain(), before)
        if held.half_at is None or before < held.half_at:
            return held
        return await self._renewed(held, before) or _hold(await source.obtain(), before)

    async def _renewed(self, held: _Held, before: float) -> _Held | None:
        """Return the token with a longer life; None when renewing does not bring enough."""
        if not held.renewable:
            return None
        try:
            renewed = _hold(await self._source.renew(held.token), before)
        except LoginRefused:
            return None
        return None if _near_its_maximum(held, renewed) else renewed


def _hold(grant: Grant, before: float) -> _Held:
    seconds = grant.seconds
    return _Held(
        token=grant.token,
        seconds=seconds,
        renewable=grant.renewable,
        half_at=None if seconds is None else before + seconds / 2,
        expires_at=None if seconds is None else before + seconds,
    )


def _near_its_maximum(held: _Held, renewed: _Held) -> bool:
    """Whether renewing has begun to bring less, because the token's maximum time to live is near."""
    return held.seconds is not None and renewed.seconds is not None and renewed.seconds < held.seconds / 2
