"""Anchors: the Vault tokens that everything issued for a task hangs from.

A replica makes its own anchor for each task and Vault role, on first use. The
intent is committed before Vault is asked, and names the anchor in Vault's books,
so that whatever this process dies of, the anchor can be found and revoked. The
accessor is committed next: before anything hangs from the anchor, or, where the
anchor is of a task that begins, with the record of the batch token that is the
first to. The secret stays in this process's memory.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from broker import deadline, revoke
from broker.clock import Clock
from broker.errors import BrokerError, MintFailed, TaskEnded, VaultAway
from broker.ids import new_id
from broker.mint.anchor import create_anchor
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Anchor, AnchorRecord, AnchorState, AuditEvent, Task
from broker.policy import Policy, PolicyChanged
from broker.step import Step, step
from broker.store import Store, anchors, events, tasks
from broker.store import policy as revisions

SHORTEST_LIFE: Final = timedelta(seconds=1)

Refusal = BrokerError | PolicyChanged | None


@dataclass(frozen=True, slots=True)
class Beginning:
    """A task that is stored with the intent of its first anchor.

    Attributes:
        task: The task.
        rules: The rules under which it may begin.
        event: What is recorded of it.
    """

    task: Task
    rules: Policy
    event: AuditEvent


class Anchors:
    """The anchors of this replica.

    Args:
        replica: Name of this process, for operators who read the records.
    """

    def __init__(self, store: Store, vault: VaultClient, clock: Clock, replica: str) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._replica = replica
        self._anchors: dict[tuple[str, str], Anchor] = {}
        self._making: dict[tuple[str, str], asyncio.Task[Anchor]] = {}

    async def get(self, task: Task, role: str) -> Anchor:
        """Return the anchor of a task under a Vault role, making it when there is none.

        Args:
            task: The task.
            role: Name of the Vault token role, and of the scope's policy.

        Raises:
            TaskEnded: when the task has ended.
            VaultUnavailable: when Vault did not answer.
            MintFailed: when Vault refused.
            StoreUnavailable: when the intent or the accessor cannot be stored.
        """
        key = (task.id, role)
        anchor = self._anchors.get(key)
        if anchor is not None and anchor.expires_at - self._clock.now() >= SHORTEST_LIFE:
            return anchor
        making = self._making.get(key)
        if making is None:
            making = asyncio.create_task(self._make(task, role), name=f"anchor {task.id}")
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

    async def begin(self, beginning: Beginning, role: str) -> Anchor:
        """Store a task that begins, and make its first anchor, which nobody else uses until it is adopted.

        The caller has it adopted in any case: with the record of what hangs
        from it (`kept`), or by `adopt`.

        Raises:
            PolicyChanged: when the rules under which the task may begin have
                changed, or another request with its id began one.
            TaskEnded, VaultUnavailable, MintFailed, StoreUnavailable: as `get`.
        """
        with deadline.lifted():
            return await self._create(beginning.task, role, beginning)

    async def adopt(self, anchor: Anchor) -> None:
        """Commit the accessor of an anchor.

        Raises:
            TaskEnded: when the task has ended; the anchor is revoked then.
            StoreUnavailable: when that cannot be stored; the anchor is revoked then.
        """
        try:
            with deadline.lifted():
                usable = await step(Step.ANCHOR_ADOPT, self._store.write_each(_adopt, (anchor, self._clock.now())))
        except Exception:
            # The accessor may have been stored all the same.
            with contextlib.suppress(BrokerError):
                await self.retire(anchor, "record.failed")
            raise
        if not usable:
            raise TaskEnded("the task ended while its anchor was made")
        self.kept(anchor)

    def kept(self, anchor: Anchor) -> None:
        """Use this anchor, whose accessor is committed, for all that its task will be issued."""
        self._anchors[anchor.task_id, anchor.role] = anchor

    def forget(self, anchor: Anchor) -> None:
        """Use this anchor for nothing new."""
        key = (anchor.task_id, anchor.role)
        if self._anchors.get(key) is anchor:
            del self._anchors[key]

    def forget_task(self, task_id: str) -> None:
        """Use no anchor of this task for anything new."""
        for key in [key for key in self._anchors if key[0] == task_id]:
            del self._anchors[key]

    def forget_expired(self, now: datetime) -> None:
        """Drop the secrets of anchors whose time is over."""
        for key in [key for key, anchor in self._anchors.items() if anchor.expires_at <= now]:
            del self._anchors[key]

    async def retire(self, anchor: Anchor, reason: str) -> None:
        """Revoke an anchor whose last child could not be recorded.

        Vault is asked at once, since the database may be what failed.
        """
        self.forget(anchor)
        await self._retract(anchor)
        now = self._clock.now()

        def retire(conn: Connection) -> None:
            anchors.adopt(conn, [anchor])
            revoke.queue_anchors(conn, [anchor.id], reason, now)

        await step(Step.ANCHOR_RETIRE, self._store.write(retire))

    async def _make(self, task: Task, role: str) -> Anchor:
        anchor = await self._create(task, role, None)
        await self.adopt(anchor)
        return anchor

    async def _create(self, task: Task, role: str, beginning: Beginning | None) -> Anchor:
        now = self._clock.now()
        if task.deadline - now < SHORTEST_LIFE:
            raise TaskEnded("the task's deadline has been reached")
        record = _record(new_id(), task.id, role, self._replica, task.deadline, now)
        refusal = await step(Step.ANCHOR_INTEND, self._store.write_each(_intend, (record, beginning)))
        if refusal is not None:
            raise refusal
        try:
            return await step(
                Step.ANCHOR_CREATE,
                create_anchor(
                    self._vault,
                    anchor_id=record.id,
                    task_id=task.id,
                    role=role,
                    policy=role,
                    ttl=task.deadline - now,
                ),
            )
        except (MintFailed, VaultAway):
            at = self._clock.now()
            await step(
                Step.ANCHOR_DROP,
                self._store.write(lambda conn: revoke.never_made(conn, record.id, task.id, at)),
            )
            raise

    async def _retract(self, anchor: Anchor) -> None:
        # Where this fails too, the sweeper and the anchor's own time to live remain.
        with contextlib.suppress(BrokerError):
            await step(Step.ANCHOR_RETRACT, retract(self._vault, anchor.accessor, None))


def _record(anchor_id: str, task_id: str, role: str, replica: str, expires_at: datetime, now: datetime) -> AnchorRecord:
    return AnchorRecord(
        id=anchor_id,
        task_id=task_id,
        role=role,
        replica=replica,
        state=AnchorState.CREATING,
        accessor=None,
        created_at=now,
        expires_at=expires_at,
    )


def _intend(conn: Connection, intents: Sequence[tuple[AnchorRecord, Beginning | None]]) -> list[Refusal]:
    """Record anchors that are about to be made, with the tasks that begin; each only where its task is active."""
    begun = _begin(conn, [beginning for _, beginning in intents if beginning is not None])
    active = tasks.pin_active(conn, [record.task_id for record, beginning in intents if beginning is None])

    def refusal(record: AnchorRecord, beginning: Beginning | None) -> Refusal:
        if beginning is not None:
            return None if record.task_id in begun else PolicyChanged()
        return None if record.task_id in active else TaskEnded("the task ended before its anchor was made")

    refusals = [refusal(*intent) for intent in intents]
    anchors.insert(conn, *(record for (record, _), refused in zip(intents, refusals, strict=True) if refused is None))
    return refusals


def _begin(conn: Connection, beginnings: Sequence[Beginning]) -> set[str]:
    """Store tasks that may still begin, and return which those are."""
    if not beginnings:
        return set()
    revision = revisions.pin_revision(conn)
    # A concurrent request with the same id may have begun one: then that one counts.
    begun = tasks.insert_unless_known(conn, [one.task for one in beginnings if one.rules.revision == revision])
    events.append(conn, [one.event for one in beginnings if one.task.id in begun])
    return begun


def _adopt(conn: Connection, made: Sequence[tuple[Anchor, datetime]]) -> list[bool]:
    """Store accessors; False for each whose task ended meanwhile, and that is queued for revocation."""
    active = tasks.pin_active(conn, [anchor.task_id for anchor, _ in made])
    anchors.adopt(conn, [anchor for anchor, _ in made])
    for anchor, now in made:
        if anchor.task_id not in active:
            revoke.queue_anchors(conn, [anchor.id], "task.ended_while_minting", now)
    return [anchor.task_id in active for anchor, _ in made]
