"""Steps: the named waits of the workflows.

Every wait for the database or for Vault inside a workflow is a step. Its name
is what a latency is measured under, what a span of a trace is called, and what
a test names to end the process just before or just after it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Step(StrEnum):
    """Every step there is: the workflow, and what it waits for."""

    ISSUE_LOOK_UP = "issue.look_up"
    ISSUE_COUNT = "issue.count"
    ISSUE_PREPARE = "issue.prepare"
    ISSUE_INTEND = "issue.intend"
    ISSUE_MINT = "issue.mint"
    ISSUE_DELIVER = "issue.deliver"
    ISSUE_COMPLETE = "issue.complete"
    ISSUE_GIVE_UP = "issue.give_up"
    ISSUE_FIND_ANCHOR = "issue.find_anchor"

    ANCHOR_INTEND = "anchor.intend"
    ANCHOR_CREATE = "anchor.create"
    ANCHOR_ADOPT = "anchor.adopt"
    ANCHOR_DROP = "anchor.drop"
    ANCHOR_RETRACT = "anchor.retract"
    ANCHOR_RETIRE = "anchor.retire"

    UNDO_RETRACT = "undo.retract"
    UNDO_QUEUE = "undo.queue"

    RENEW_LOOK_UP = "renew.look_up"
    RENEW_PROLONG = "renew.prolong"
    RENEW_RECORD = "renew.record"

    REVOKE_LOOK_UP = "revoke.look_up"
    REVOKE_REQUEST = "revoke.request"
    REVOKE_READ = "revoke.read"

    TASK_LOOK_UP = "task.look_up"
    TASK_START = "task.start"
    TASK_HEARTBEAT = "task.heartbeat"
    TASK_COMPLETE = "task.complete"

    TAKEBACK_COUNT = "takeback.count"
    TAKEBACK_ORDER = "takeback.order"
    TAKEBACK_REVOKE = "takeback.revoke"
    TAKEBACK_WAIT = "takeback.wait"

    LOCK_CREATE = "lock.create"
    LOCK_FIND = "lock.find"
    LOCK_ENFORCE = "lock.enforce"
    LOCK_WAIT = "lock.wait"
    LOCK_LIFT = "lock.lift"

    OUTBOX_CLAIM = "outbox.claim"
    OUTBOX_LOOK_UP = "outbox.look_up"
    OUTBOX_RETRACT = "outbox.retract"
    OUTBOX_CONFIRM = "outbox.confirm"
    OUTBOX_RETRY = "outbox.retry"
    OUTBOX_RELEASE = "outbox.release"

    VAULT_CALL = "vault.call"


Observer = Callable[[Step], AbstractContextManager[object]]

_observers: tuple[Observer, ...] = ()
_around: Observer | None = None


def observe(observer: Observer) -> Callable[[], None]:
    """Let an observer stand around every step of this process from now on.

    What it returns for a step is entered before the step begins and left with
    what the step raised.

    Returns:
        What ends the observation.
    """
    _set((*_observers, observer))
    return lambda: _set(tuple(one for one in _observers if one is not observer))


async def step(name: Step, work: Awaitable[T]) -> T:
    """Wait for one step of a workflow and return its result. Raises what it raises."""
    if _around is None:
        return await work
    with _around(name):
        return await work


def _set(observers: tuple[Observer, ...]) -> None:
    global _observers, _around
    _observers = observers
    match observers:
        case ():
            _around = None
        case (only,):
            _around = only
        case _:
            _around = _all


def _all(name: Step) -> AbstractContextManager[object]:
    stack = ExitStack()
    for observer in _observers:
        stack.enter_context(observer(name))
    return stack
