"""The way of a request for a credential: decide, mint, record, hand out.

::

    decide    identity, task, scope and parameters → grant, under one revision of the rules
    anchor    the task's token in Vault, its accessor committed before anything hangs from it
              but the batch token that a task begins with, whose record commits it
    prepare   for leases: the token they will hang from, committed before the lease exists
    mint      Vault makes the credential
    record    issuance and audit event, durable, only if the decision still holds
    respond

What Vault made and cannot be recorded as handed out is never handed out: it is
revoked, or recorded as undelivered where it cannot be revoked by itself.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import structlog

from broker import deadline, policy, record
from broker.anchors import Anchors, Beginning
from broker.audit import Call
from broker.authorize import Grant
from broker.deciding import Deciding, Errand, IssueRequest
from broker.errand import see_through
from broker.errors import (
    BrokerError,
    MintFailed,
    TaskEnded,
    VaultAway,
    VaultUnavailable,
)
from broker.ids import new_id
from broker.mint import KINDS
from broker.mint.kind import Holder, Minted, Order
from broker.mint.naming import role_name
from broker.mint.retract import is_gone
from broker.mint.vault import VaultClient
from broker.model import (
    Anchor,
    Issuance,
    IssuanceState,
    JsonValue,
    Revocability,
    Task,
)
from broker.outbox import Revoker
from broker.record import Decided, Delivery
from broker.secret import Secret, fingerprint
from broker.step import Step, step
from broker.store import Store, Work, each
from broker.tasks import started
from broker.undo import Undo

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")

SHORTEST_TIME = timedelta(milliseconds=50)
"""With less time left than this, Vault is not asked for anything."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential on its way to the agent, with its record and task."""

    issuance: Issuance
    secret: Secret[dict[str, JsonValue]]
    task: Task


class Issuer:
    """Issues credentials.

    Args:
        key: Key of the fingerprints.
    """

    def __init__(
        self,
        store: Store,
        vault: VaultClient,
        deciding: Deciding,
        anchors: Anchors,
        revoker: Revoker,
        undo: Undo,
        key: Secret[bytes],
    ) -> None:
        self._store = store
        self._vault = vault
        self._deciding = deciding
        self._anchors = anchors
        self._revoker = revoker
        self._undo = undo
        self._key = key
        self._running: set[asyncio.Task[object]] = set()

    async def issue(self, call: Call, request: IssueRequest) -> Issued:
        """Issue one credential.

        A caller that goes away leaves nothing half done: the errand is carried
        to its end, what it got is revoked where it can be, and only then is the
        cancellation raised. The deadline decides whether Vault is asked at all;
        what may be left there is then waited for, since knowing its accessor
        costs one revocation, and not knowing it the whole anchor.

        Raises:
            BrokerError: any refusal that the contract names; nothing was handed
                out then.
        """
        errand = Errand(call, request)
        work = self._background(deadline.kept(policy.until_settled(lambda: self._attempt(errand))), "issue")
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await see_through(self._background(self._take_back(work), "take back"))
            raise

    async def drain(self) -> None:
        """Wait for errands whose callers have gone away."""
        while self._running:
            await asyncio.wait(self._running)

    async def _attempt(self, errand: Errand) -> Issued:
        decided = await self._deciding.decide(errand)
        deadline.require(SHORTEST_TIME)
        anchor, adopted = await self._anchor(errand, decided)
        try:
            return await self._mint(errand.call, decided, anchor, adopted=adopted)
        except MintFailed:
            if not await step(Step.ISSUE_FIND_ANCHOR, is_gone(self._vault, anchor.accessor, None)):
                raise
        # Somebody revoked the anchor behind the broker's back.
        await self._undo.anchor(anchor, "anchor.lost")
        anchor, _ = await self._anchor(errand, decided)
        return await self._mint(errand.call, decided, anchor)

    async def _anchor(self, errand: Errand, decided: Decided) -> tuple[Anchor, bool]:
        """Return the anchor, and whether it is adopted; the first of a task may be so with the first record."""
        task, grant = decided.task, decided.grant
        role = role_name(grant.scope, grant.mapping)
        if not decided.begins or errand.begun is not None:
            return await self._anchors.get(task, role), True
        anchor = await self._anchors.begin(Beginning(task, decided.rules, started(errand.call, task)), role)
        errand.begun = task
        if KINDS[grant.mapping.kind].revocability(grant.mapping) is Revocability.WITH_TASK:
            return anchor, False
        await self._anchors.adopt(anchor)
        return anchor, True

    async def _mint(self, call: Call, decided: Decided, anchor: Anchor, *, adopted: bool = True) -> Issued:
        order = _order(decided.grant, anchor)
        call.issuance_id = order.issuance_id
        kind = KINDS[order.mapping.kind]
        revocability = kind.revocability(order.mapping)
        try:
            deadline.require(SHORTEST_TIME)
            preparing = step(Step.ISSUE_PREPARE, kind.prepare(self._vault, anchor, order))
            holder = await self._unless_perhaps_made(preparing, anchor, revocability)
            if holder is not None:
                with deadline.lifted():
                    return await self._mint_held(call, decided, anchor, order, holder)
            minting = step(Step.ISSUE_MINT, kind.mint(self._vault, anchor, None, order))
            minted = await self._unless_perhaps_made(minting, anchor, revocability)
        except Exception:
            if not adopted:
                with contextlib.suppress(BrokerError):
                    await self._anchors.adopt(anchor)
            raise
        issuance = self._issuance(call, decided, anchor, order, minted)
        refusal = await self._record(
            Step.ISSUE_DELIVER,
            record.deliver,
            Delivery(call, decided, issuance, None if adopted else anchor),
            otherwise=lambda: self._undo.unrecorded(anchor, issuance),
        )
        if not adopted and not isinstance(refusal, TaskEnded):
            self._anchors.kept(anchor)
        return self._respond(decided, issuance, minted, refusal)

    async def _mint_held(self, call: Call, decided: Decided, anchor: Anchor, order: Order, holder: Holder) -> Issued:
        """Mint what hangs from a holder: its accessor is durable before the lease exists."""
        intent = self._issuance(call, decided, anchor, order, holder)
        refusal = await self._record(
            Step.ISSUE_INTEND,
            each,
            lambda conn: record.intend(conn, call, decided, intent),
            otherwise=lambda: self._undo.unrecorded(anchor, intent),
        )
        if refusal is not None:
            await self._undo.token(holder.accessor)
            raise refusal
        try:
            minted = await step(Step.ISSUE_MINT, KINDS[intent.kind].mint(self._vault, anchor, holder, order))
        except BrokerError as error:
            await self._give_up(call, decided, intent, holder, error)
            raise
        issuance = self._issuance(call, decided, anchor, order, minted)
        refusal = await self._record(
            Step.ISSUE_COMPLETE,
            each,
            lambda conn: record.complete(conn, call, decided, issuance),
            otherwise=lambda: self._undo.unrecorded(anchor, issuance),
        )
        return self._respond(decided, issuance, minted, refusal)

    async def _record(
        self,
        name: Step,
        work: Work[A, record.Refusal],
        item: A,
        otherwise: Callable[[], Awaitable[None]],
    ) -> record.Refusal:
        """Make a record durable; whatever keeps that from happening, take back what it would have recorded."""
        try:
            with deadline.lifted():
                return await step(name, self._store.write_each(work, item))
        except Exception:
            await otherwise()
            raise

    def _issuance(self, call: Call, decided: Decided, anchor: Anchor, order: Order, made: Minted | Holder) -> Issuance:
        """Return the record of what was minted, or of what is about to be, to hang from a holder."""
        grant = decided.grant
        minted = made if isinstance(made, Minted) else None
        return Issuance(
            id=order.issuance_id,
            task_id=anchor.task_id,
            anchor_id=anchor.id,
            agent=call.uri,
            scope=grant.scope,
            scope_version=grant.version,
            kind=grant.mapping.kind,
            parameters=grant.parameters,
            state=IssuanceState.ACTIVE if minted else IssuanceState.MINTING,
            revocability=KINDS[grant.mapping.kind].revocability(grant.mapping),
            renewable=minted is not None and minted.renewable,
            created_at=call.now,
            expires_at=minted.expires_at if minted else call.now + grant.ttl,
            max_expires_at=minted.max_expires_at if minted else call.now + grant.max_ttl,
            fingerprint=fingerprint(self._key, minted.secret.reveal()) if minted else "",
            accessor=made.accessor,
            lease_id=minted.lease_id if minted else None,
            request_id=decided.request_id,
        )

    def _respond(self, decided: Decided, issuance: Issuance, minted: Minted, refusal: record.Refusal) -> Issued:
        if refusal is not None:
            self._deciding.forget_task(decided.task.id)
            self._revoker.wake()
            raise refusal
        self._deciding.recorded(decided)
        return Issued(issuance, minted.secret, decided.task)

    async def _unless_perhaps_made(self, making: Awaitable[T], anchor: Anchor, revocability: Revocability) -> T:
        """Let Vault make something; what it may have made without saying so is taken back."""
        try:
            with deadline.lifted(when=revocability is Revocability.INDIVIDUAL):
                return await making
        except VaultAway:
            raise
        except VaultUnavailable:
            await self._undo.perhaps_made(anchor, revocability)
            raise

    async def _give_up(
        self, call: Call, decided: Decided, intent: Issuance, holder: Holder, error: BrokerError
    ) -> None:
        """Take back what a failed mint may have made. The intent stays for the sweeper where the record fails too."""
        try:
            await step(
                Step.ISSUE_GIVE_UP,
                self._store.write(lambda conn: record.give_up(conn, call, decided, intent, error)),
            )
        except Exception as failure:
            log.error("the end of an intent cannot be recorded", issuance=intent.id, exc_info=failure)
            await self._undo.token(holder.accessor)
        self._revoker.wake()

    async def _take_back(self, work: asyncio.Task[Issued]) -> None:
        """Take back what an errand gets for a caller that has gone away."""
        await asyncio.wait([work])
        if not work.cancelled() and work.exception() is None:
            await self._undo.undelivered(work.result().issuance)

    def _background(self, work: Coroutine[object, object, R], name: str) -> asyncio.Task[R]:
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _order(grant: Grant, anchor: Anchor) -> Order:
    return Order(
        issuance_id=new_id(),
        policy=anchor.role,
        mapping=grant.mapping,
        parameters=grant.parameters,
        ttl=grant.ttl,
        max_ttl=grant.max_ttl,
    )
