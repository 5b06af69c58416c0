"""Which lock holds, if any."""

from collections.abc import Sequence
from datetime import datetime

from broker.authorize.patterns import matches_agent
from broker.model import Lock, LockKind


def hold(locks: Sequence[Lock], *, agent: str, task_id: str | None, scope: str | None, now: datetime) -> Lock | None:
    """Return the first lock that holds the agent, the task or the scope.

    A lock whose pattern cannot be read holds every agent: what it was meant to
    stop must not go on.

    Args:
        locks: Locks that were not lifted.
        agent: URI of the agent.
        task_id: The task, where there is one.
        scope: Name of the scope, where one is concerned.
        now: Locks that expired by then no longer hold.
    """
    exact = {LockKind.AGENT: agent, LockKind.TASK: task_id, LockKind.SCOPE: scope}
    for lock in locks:
        if lock.expires_at is not None and lock.expires_at <= now:
            continue
        if _matches(lock.target, agent) if lock.kind is LockKind.AGENT_PATTERN else lock.target == exact[lock.kind]:
            return lock
    return None


def _matches(pattern: str, agent: str) -> bool:
    try:
        return matches_agent(pattern, agent)
    except ValueError:
        return True
