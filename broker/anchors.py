"""Anchors: the Vault tokens that everything issued for a task hangs from.

A replica makes its own anchor for each task and Vault role, on first use. The
intent is committed before Vault is asked and the accessor before anything
hangs from it, so that whatever this process dies of, the anchor can be found
and revoked. The secret stays in this process's memory.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from broker import revoke
from broker.clock import Clock
from broker.errors import BrokerError, MintFailed, TaskEnded, VaultAway
from broker.ids import new_id
from broker.mint.anchor import create_anchor
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import Anchor, AnchorRecord, AnchorState, Task, TaskState
from broker.step import Step, step
from broker.store import Store, anchors, tasks

SHORTEST_LIFE: Final = timedelta(seconds=1)

Begin = Callable[[Connection], None]


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

    async def get(self, task: Task, role: str, begin: Begin | None = None) -> Anchor:
        """Return the anchor of a task under a Vault role, making it when there is none.

        Args:
            task: The task; new ones are stored by `begin`.
            role: Name of the Vault token role, and of the scope's policy.
            begin: Further work for the transaction that records the intent; it
                runs only when an anchor is made.

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
            making = asyncio.create_task(self._make(task, role, begin), name=f"anchor {task.id}")
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

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
        await step(
            Step.ANCHOR_RETIRE, self._store.write(lambda conn: revoke.queue_anchors(conn, [anchor.id], reason, now))
        )

    async def _make(self, task: Task, role: str, begin: Begin | None) -> Anchor:
        now = self._clock.now()
        if task.deadline - now < SHORTEST_LIFE:
            raise TaskEnded("the task's deadline has been reached")
        record = _record(new_id(), task.id, role, self._replica, task.deadline, now)
        await step(Step.ANCHOR_INTEND, self._store.write(lambda conn: _intend(conn, record, begin)))
        try:
            anchor = await step(
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
            await step(
                Step.ANCHOR_DROP,
                self._store.write(lambda conn: anchors.note_gone(conn, [record.id])),
            )
            raise
        try:
            usable = await step(
                Step.ANCHOR_ADOPT, self._store.write(lambda conn: _adopt(conn, anchor, self._clock.now()))
            )
        except Exception:
            # The accessor may have been stored all the same.
            with contextlib.suppress(BrokerError):
                await self.retire(anchor, "record.failed")
            raise
        if not usable:
            raise TaskEnded("the task ended while its anchor was made")
        self._anchors[(task.id, role)] = anchor
        return anchor

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


def _intend(conn: Connection, record: AnchorRecord, begin: Begin | None) -> None:
    if begin is not None:
        begin(conn)
    task = tasks.pin(conn, record.task_id)
    if task is None or task.state is not TaskState.ACTIVE:
        raise TaskEnded("the task ended before its anchor was made")
    anchors.insert(conn, record)


def _adopt(conn: Connection, anchor: Anchor, now: datetime) -> bool:
    """Store the accessor; False when the task ended meanwhile, and the anchor is queued."""
    task = tasks.pin(conn, anchor.task_id)
    anchors.activate(conn, anchor.id, anchor.accessor, anchor.expires_at)
    if task is not None and task.state is TaskState.ACTIVE:
        return True
    revoke.queue_anchors(conn, [anchor.id], "task.ended_while_minting", now)
    return False
