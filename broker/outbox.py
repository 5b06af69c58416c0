"""Working off the outbox: Vault is asked again and again until it confirms.

Each replica claims what is due, a little at a time. A claim is good for a
while and carries an epoch: should this replica be paused and another take the
entry over, what this one still has to say about it is refused.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

import structlog
from sqlalchemy import Connection

from broker import deadline
from broker.clock import Clock
from broker.errors import BrokerError
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Revocation
from broker.revoke import Confirmation, Hold, confirm
from broker.step import Step, step
from broker.store import Store, revocations

HOLD: Final = timedelta(seconds=40)
"""How long a claim lasts: longer than an attempt can take."""

FIRST_HOLD: Final = timedelta(seconds=10)
"""How long what is claimed as it is queued stays claimed: longer than a healthy Vault takes.

An attempt may take longer, and another be made meanwhile: asking Vault twice
does no harm, and one of them is recorded.
"""

CONCURRENCY: Final = 16
AT_HAND: Final = 2 * CONCURRENCY
"""Most entries that the background work has claimed: those that it works on, and as many to go on with."""

BATCH: Final = 64

_ATTEMPT_SECONDS = 25.0
_LONGEST_WAIT = HOLD.total_seconds() - _ATTEMPT_SECONDS - 5.0
_IDLE_SECONDS = 0.5
_POLL_SECONDS = 0.05
_LAST_SECONDS = 2.0
_FIRST_RETRY = timedelta(milliseconds=200)
_LONGEST_RETRY = timedelta(seconds=30)

Confirmed: TypeAlias = Callable[[Revocation, datetime], None]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Claim:
    """An entry that this replica has claimed, when by the monotonic clock, and what came of it."""

    entry: Revocation
    at: float
    outcome: Confirmation | None = None


class Revoker:
    """Works the outbox off: asks Vault, and records when it confirmed.

    Args:
        replica: Name of this process, which its claims carry.
        confirmed: Is told of each revocation and when Vault confirmed it, once
            that is recorded.
    """

    def __init__(
        self, store: Store, vault: VaultClient, clock: Clock, replica: str, confirmed: Confirmed | None = None
    ) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._replica = replica
        self._confirmed = confirmed
        self._wake = asyncio.Event()
        self._under_way: dict[str, tuple[asyncio.Task[None], _Claim]] = {}
        self._claiming: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Work in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name="revoker")
        return self._loop

    async def stop(self) -> None:
        """End the background work; what Vault has not confirmed by then is left to other replicas."""
        ending = [*self._claiming, *([self._loop] if self._loop is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        working = [work for work, _ in self._under_way.values()]
        if working:
            await asyncio.wait(working, timeout=_LAST_SECONDS)
        left = [claim.entry for _, claim in self._under_way.values()]
        for work in working:
            work.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        now = self._clock.now()
        with contextlib.suppress(BrokerError):
            await step(Step.OUTBOX_RELEASE, self._store.write(lambda conn: revocations.release(conn, left, now)))

    def wake(self) -> None:
        """Look at the outbox now rather than at the next turn."""
        self._wake.set()

    def hold(self) -> Hold:
        """Return the claim under which `carry_out` works on what is being queued."""
        return Hold(self._replica, self._clock.now() + FIRST_HOLD)

    async def carry_out(self, task_id: str, entries: Sequence[Revocation], wait: timedelta) -> datetime | None:
        """Work off what one task has in the outbox, claimed since it was queued, waiting no longer than `wait`.

        Returns:
            When everything of the task was confirmed to be gone, where the
            first attempt did it; else the record says so.
        """
        began = self._clock.monotonic()
        self._begin(entries)
        under_way = [self._under_way[entry.id] for entry in entries]
        if under_way:
            await asyncio.wait([work for work, _ in under_way], timeout=wait.total_seconds())
        for _, claim in under_way:
            if claim.outcome is not None and claim.outcome.task_confirmed_at is not None:
                return claim.outcome.task_confirmed_at
        await self.settle(task_id, wait - timedelta(seconds=self._clock.monotonic() - began))
        return None

    def resume(self, task_id: str) -> None:
        """Work on what one task may have in the outbox under a `hold`, though what queued it failed or was left."""
        self._take(task_id, untried=True)

    async def settle(self, task_id: str, wait: timedelta) -> None:
        """Work off what one task has in the outbox, waiting no longer than `wait`.

        Returns in either case: the record says what is confirmed, and the
        background work goes on with the rest.
        """
        with contextlib.suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(wait.total_seconds()):
                while await self._unsettled(task_id):
                    await asyncio.shield(self._take(task_id))
                    working = [work for work, claim in self._under_way.values() if claim.entry.task_id == task_id]
                    await (asyncio.wait(working) if working else self._clock.sleep(_POLL_SECONDS))
        self.wake()

    async def _unsettled(self, task_id: str) -> bool:
        entries = await step(Step.OUTBOX_LOOK_UP, self._store.read(lambda conn: revocations.of_task(conn, task_id)))
        return any(entry.confirmed_at is None for entry in entries)

    def _take(self, task_id: str, *, untried: bool = False) -> asyncio.Task[None]:
        """Claim what one task has and begin with it, also when nobody waits for that any more.

        A claim without work would keep everybody from it until it runs out.
        """

        async def take() -> None:
            with contextlib.suppress(BrokerError):
                self._begin(await (self._claim_untried(task_id) if untried else self._claim(BATCH, task_id)))

        with deadline.lifted():
            claiming = asyncio.create_task(take(), name=f"claim {task_id}")
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        return claiming

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            free = AT_HAND - len(self._under_way)
            claimed: list[Revocation] = []
            try:
                claimed = await self._claim(free) if free > 0 else []
            except BrokerError as error:
                log.warning("the outbox of revocations cannot be read", reason=error.detail)
            self._begin(claimed)
            if len(claimed) >= free:
                # There is more: claim again once a good part of it can be worked on.
                while len(self._under_way) > CONCURRENCY:
                    working = [work for work, _ in self._under_way.values()]
                    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _IDLE_SECONDS)

    async def _claim(self, limit: int, task_id: str | None = None) -> list[Revocation]:
        now = self._clock.now()

        def claim(conn: Connection) -> list[Revocation]:
            return revocations.claim(conn, now, by=self._replica, hold=HOLD, limit=limit, task_id=task_id)

        return await step(Step.OUTBOX_CLAIM, self._store.write(claim))

    async def _claim_untried(self, task_id: str) -> list[Revocation]:
        now = self._clock.now()

        def claim(conn: Connection) -> list[Revocation]:
            return revocations.claim_untried(conn, now, by=self._replica, hold=HOLD, limit=BATCH, task_id=task_id)

        return await step(Step.OUTBOX_CLAIM, self._store.write(claim))

    def _begin(self, claimed: Sequence[Revocation]) -> None:
        now = self._clock.monotonic()
        for entry in claimed:
            work, claim = self._under_way.get(entry.id, (None, None))
            if work is not None and claim is not None and not work.done():
                # Time has jumped: the claim ran out under the work, and this replica has it anew.
                claim.entry, claim.at = entry, now
                continue
            claim = _Claim(entry, now)
            with deadline.lifted():
                work = asyncio.create_task(self._work(claim, self._anchors_of(entry)), name=f"revoke {entry.id}")
            self._under_way[entry.id] = work, claim
            work.add_done_callback(partial(self._done, entry.id))

    def _done(self, entry_id: str, ended: asyncio.Task[None]) -> None:
        work, _ = self._under_way[entry_id]
        if work is ended:
            del self._under_way[entry_id]

    def _anchors_of(self, entry: Revocation) -> list[asyncio.Task[None]]:
        """Return the work on the anchors that an issuance's token may hang from."""
        if entry.anchor_id is not None:
            return []
        return [
            work
            for work, other in self._under_way.values()
            if other.entry.anchor_id is not None and other.entry.task_id == entry.task_id
        ]

    async def _work(self, claim: _Claim, first: Sequence[asyncio.Task[None]]) -> None:
        if first:
            await asyncio.wait(first)  # what hangs from them is gone by then, with one call
        async with self._slots:
            if self._clock.monotonic() - claim.at > _LONGEST_WAIT:
                return  # it is somebody else's by the time an attempt could end
            error = ""
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    entry = claim.entry
                    gone = await step(
                        Step.OUTBOX_RETRACT,
                        retract(self._vault, entry.accessor, entry.lease_id, insist=entry.attempts > 0),
                    )
            except (BrokerError, TimeoutError) as failure:
                gone, error = False, failure.detail if isinstance(failure, BrokerError) else "no answer in time"
            await self._note(claim, gone, error)

    async def _note(self, claim: _Claim, gone: bool, error: str) -> None:
        """Record an attempt, under the claim's newest epoch: nobody else would end what it holds."""
        entry = None
        while entry is not claim.entry:
            entry = claim.entry
            try:
                claim.outcome = await self._record(entry, gone, error)
            except BrokerError as failure:
                log.warning("the end of a revocation cannot be recorded", entry=entry.id, reason=failure.detail)
            else:
                if claim.outcome.known:
                    return
                log.warning("another claim has taken over a revocation", entry=entry.id, epoch=entry.epoch)

    async def _record(self, entry: Revocation, gone: bool, error: str) -> Confirmation:
        """Record an attempt; it is not known when the entry is another replica's by now."""
        now = self._clock.now()
        if gone:
            outcome = await step(Step.OUTBOX_CONFIRM, self._store.write_each(confirm, (entry, now)))
            if outcome.known and self._confirmed is not None:
                self._confirmed(entry, now)
            return outcome
        if error:
            log.warning("revocation failed, will retry", task=entry.task_id, attempts=entry.attempts + 1, reason=error)
        again_at = now + _backoff(entry.attempts)

        def retry(conn: Connection) -> bool:
            return revocations.retry(conn, entry, error=error or "not gone yet", next_attempt_at=again_at)

        return Confirmation(await step(Step.OUTBOX_RETRY, self._store.write(retry)))


def _backoff(attempts: int) -> timedelta:
    """Return how long to wait after that many failed attempts, with jitter."""
    longest: timedelta = min(_FIRST_RETRY * (1 << min(attempts, 16)), _LONGEST_RETRY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, decides nothing
