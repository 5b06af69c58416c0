"""What issuances write: each function is the work of one transaction.

A decision that no longer holds is returned, not raised, so that it costs the
other works of the same transaction nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from broker import revoke
from broker.audit import Call
from broker.audit.catalogue import CREDENTIAL_ISSUED, CREDENTIAL_MINT_FAILED, CREDENTIAL_REQUESTED
from broker.authorize import Grant
from broker.errors import BrokerError, LimitReached, Locked, RequestIdReused, TaskEnded
from broker.model import Anchor, AnchorState, AuditEvent, Issuance, IssuanceState, JsonValue, Task, TaskState
from broker.policy import Policy, PolicyChanged
from broker.store import anchors, events, issuances, tasks
from broker.store import policy as revisions

UNDELIVERED: Final = "undelivered"

Refusal = BrokerError | PolicyChanged | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, with all that must still be true when it is recorded.

    Attributes:
        rules: The rules it was made under.
        task: The task that will own the credential.
        begins: Whether the task is yet to be stored.
        grant: What was granted.
        request_id: The caller's own name for the request.
    """

    rules: Policy
    task: Task
    begins: bool
    grant: Grant
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A minted credential that is to be handed out, and what it was decided on.

    Attributes:
        anchor: The anchor that it hangs from, where that is yet to be adopted.
    """

    call: Call
    decided: Decided
    issuance: Issuance
    anchor: Anchor | None = None


def recheck(conn: Connection, decided: Decided, anchor_id: str, now: datetime) -> Refusal:
    """Return why a credential from this anchor cannot be recorded any more, or None; holds it so until commit."""
    (refusal,) = _standing(conn, [(decided, anchor_id)])
    if refusal is not None:
        return refusal
    if decided.request_id is not None:
        earlier = issuances.by_request(conn, decided.task.agent, decided.request_id)
        if earlier is not None:
            return reused(earlier)
    return limit_reached(conn, decided.grant, decided.task, now, exact=True)


def _standing(conn: Connection, decisions: Sequence[tuple[Decided, str]]) -> list[Refusal]:
    """Return why decisions do not stand any more: the rules, the task or its anchor have changed."""
    revision = revisions.pin_revision(conn)
    if tasks.pin_standing(conn, {(anchor_id, decided.task.id) for decided, anchor_id in decisions}):
        return [None if decided.rules.revision == revision else PolicyChanged() for decided, _ in decisions]
    pinned = tasks.pin_anchored(conn, list({anchor_id for _, anchor_id in decisions}))

    def refusal(decided: Decided, anchor_id: str) -> Refusal:
        if decided.rules.revision != revision:
            return PolicyChanged()
        states = pinned.get(anchor_id)
        if states is None or states.task_id != decided.task.id or states.task is not TaskState.ACTIVE:
            return TaskEnded(f"task {decided.task.id} ended while the credential was minted")
        if states.anchor is not AnchorState.ACTIVE:
            return PolicyChanged()  # it would die with its anchor: decide again, for a new one
        return None

    return [refusal(decided, anchor_id) for decided, anchor_id in decisions]


def reused(earlier: Issuance) -> RequestIdReused:
    """Return the refusal of a request id that was granted before."""
    return RequestIdReused(
        f"request {earlier.request_id} was granted as issuance {earlier.id}",
        metadata={"issuance_id": earlier.id, "task_id": earlier.task_id},
    )


def limit_reached(conn: Connection, grant: Grant, task: Task, now: datetime, *, exact: bool) -> LimitReached | None:
    """Return which limit of the scope one more credential would pass.

    Args:
        conn: The transaction.
        grant: What would be issued.
        task: The task that would own it.
        now: The moment of the request.
        exact: Hold all counts still until commit.
    """
    limits, scope = grant.limits, grant.scope
    counts: tuple[tuple[str, int | None, Callable[[], int]], ...] = (
        ("livePerTask", limits.live_per_task, lambda: issuances.count_live(conn, task_id=task.id, scope=scope)),
        ("livePerAgent", limits.live_per_agent, lambda: issuances.count_live(conn, agent=task.agent, scope=scope)),
        ("livePerScope", limits.live_per_scope, lambda: issuances.count_live(conn, scope=scope)),
        (
            "perAgentPerMinute",
            limits.per_agent_per_minute,
            lambda: issuances.count_since(conn, agent=task.agent, scope=scope, since=now - timedelta(minutes=1)),
        ),
    )
    if exact and any(limit is not None for _, limit, _ in counts):
        issuances.lock_limits(conn)
    for name, limit, count in counts:
        if limit is not None and count() >= limit:
            return LimitReached(
                f"scope {scope}: {name} is {limit}",
                message=f"the scope's limit {name} of {limit} is reached; let credentials end before asking for more",
                metadata={"limit": name, "value": str(limit)},
                retry_after=timedelta(seconds=5),
            )
    return None


def intend(conn: Connection, call: Call, decided: Decided, intent: Issuance) -> Refusal:
    """Record that a credential is about to be minted."""
    refusal = recheck(conn, decided, intent.anchor_id, call.now)
    if refusal is None:
        issuances.insert(conn, intent)
        events.append(conn, [_event(CREDENTIAL_REQUESTED, call, decided, intent)])
    return refusal


def complete(conn: Connection, call: Call, decided: Decided, issuance: Issuance) -> Refusal:
    """Record that an intended credential was minted and will be handed out."""
    known = issuances.activate(
        conn,
        issuance.id,
        expires_at=issuance.expires_at,
        max_expires_at=issuance.max_expires_at,
        fingerprint=issuance.fingerprint,
        lease_id=issuance.lease_id,
        accessor=issuance.accessor,
        renewable=issuance.renewable,
    )
    if known:
        events.append(conn, [_event(CREDENTIAL_ISSUED, call, decided, issuance)])
        return None
    task = tasks.get(conn, issuance.task_id)
    if task is not None and task.state is TaskState.ACTIVE:
        return Locked("the issuance was revoked while it was minted")
    return TaskEnded("the task ended while the credential was minted")


def deliver(conn: Connection, deliveries: Sequence[Delivery]) -> list[Refusal]:
    """Record credentials that needed no intent; as undelivered where the decision no longer holds.

    What they hang from is adopted in any case.
    """
    anchors.adopt(conn, [one.anchor for one in deliveries if one.anchor is not None])
    refusals = _standing(conn, [(one.decided, one.issuance.anchor_id) for one in deliveries])
    places = [place for place, refusal in enumerate(refusals) if refusal is None]
    counted = [place for place in places if deliveries[place].decided.grant.limits.given]
    _insert(conn, deliveries, refusals, [place for place in places if place not in counted])
    for place in counted:
        # One after the other: each counts for the next.
        decided, now = deliveries[place].decided, deliveries[place].call.now
        refusals[place] = limit_reached(conn, decided.grant, decided.task, now, exact=True)
        if refusals[place] is None:
            _insert(conn, deliveries, refusals, [place])
    good = [one for one, refusal in zip(deliveries, refusals, strict=True) if refusal is None]
    events.append(conn, [_event(CREDENTIAL_ISSUED, one.call, one.decided, one.issuance) for one in good])
    for one, refusal in zip(deliveries, refusals, strict=True):
        if refusal is not None:
            _undelivered(conn, one)
            if one.anchor is not None and isinstance(refusal, TaskEnded):
                revoke.queue_anchors(conn, [one.anchor.id], "task.ended_while_minting", one.call.now)
    return refusals


def _insert(conn: Connection, deliveries: Sequence[Delivery], refusals: list[Refusal], places: Sequence[int]) -> None:
    """Store what is at these places, and note which of it answers a request that was granted before."""
    if issuances.insert_unless_reused(conn, [deliveries[place].issuance for place in places]):
        return
    stored = issuances.stored(conn, [deliveries[place].issuance.id for place in places])
    for place in places:
        issuance = deliveries[place].issuance
        if issuance.id not in stored and issuance.request_id is not None:
            earlier = issuances.by_request(conn, issuance.agent, issuance.request_id)
            refusals[place] = PolicyChanged() if earlier is None else reused(earlier)


def _undelivered(conn: Connection, delivery: Delivery) -> None:
    call, issuance = delivery.call, delivery.issuance
    lost = replace(issuance, request_id=None, state=IssuanceState.MINTING)
    if lost.accessor is None:
        lost = replace(lost, state=IssuanceState.FAILED, end_reason=UNDELIVERED, ended_at=lost.expires_at)
    issuances.insert(conn, lost)
    revoke.queue_issuance(conn, lost, UNDELIVERED, call.now)
    facts = _facts(delivery.decided, lost)
    events.append(conn, [call.event(CREDENTIAL_MINT_FAILED, reason=UNDELIVERED, attributes=facts)])


def give_up(conn: Connection, call: Call, decided: Decided, intent: Issuance, error: BrokerError) -> None:
    """Record that minting failed, and put up for revocation what may exist all the same."""
    issuances.release_request(conn, intent.id)
    revoke.queue_issuance(conn, intent, "mint_failed", call.now)
    facts = _facts(decided, intent)
    events.append(
        conn, [call.event(CREDENTIAL_MINT_FAILED, reason=error.reason, detail=error.detail, attributes=facts)]
    )


def _event(kind: str, call: Call, decided: Decided, issuance: Issuance) -> AuditEvent:
    return call.event(kind, attributes=_facts(decided, issuance))


def _facts(decided: Decided, issuance: Issuance) -> dict[str, JsonValue]:
    return {
        "kind": issuance.kind,
        "rule": decided.grant.rule,
        "parameters": dict(issuance.parameters),
        "expires_at": issuance.expires_at.isoformat(),
        "fingerprint": issuance.fingerprint,
    }
