"""What is asked, and what is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from broker.document import CredentialMapping, Limits
from broker.model import Identity, JsonObject


@dataclass(frozen=True, slots=True)
class TaskView:
    """What a decision may know of a task.

    Attributes:
        id: None for a task that nobody has started.
        purpose: In the agent's words.
        labels: Given at the start.
        declared_scopes: When not empty, no other scope is granted.
        deadline: No credential outlives it.
    """

    id: str | None
    purpose: str
    labels: Mapping[str, str]
    declared_scopes: tuple[str, ...]
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a credential.

    Attributes:
        identity: Who asks.
        task: What for.
        scope: Name of the scope.
        parameters: As the agent sent them.
        ttl: Time to live; None for the scope's default.
        now: The one time of this decision.
    """

    identity: Identity
    task: TaskView
    scope: str
    parameters: JsonObject
    ttl: timedelta | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted, and under which rule.

    Attributes:
        scope: Name of the scope.
        version: The version that was enforced.
        parameters: Checked against the scope's schema.
        ttl: Time to live, within the task's deadline.
        max_ttl: The most that renewals can reach from now, within the deadline.
        mapping: What is to be minted.
        limits: What still has to be counted.
        rule: The entry of ``spec.who`` that admitted, such as ``spec.who[0]``.
    """

    scope: str
    version: int
    parameters: JsonObject
    ttl: timedelta
    max_ttl: timedelta
    mapping: CredentialMapping
    limits: Limits
    rule: str


class Step(NamedTuple):
    """One rule that was looked at.

    Attributes:
        rule: Path in the scope document, or the name of a check.
        passed: Whether the rule lets the request pass.
        detail: What was compared, in words; for admins and the audit trail.
    """

    rule: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a decision came about.

    Attributes:
        allowed: Whether the request would be granted.
        reason: What the agent would be told (``ErrorInfo.reason``); empty when
            allowed.
        deciding_rule: The rule that refused, or the entry of ``spec.who`` that
            admitted.
        steps: Every rule that was looked at, in order; none after a refusal.
        scope_version: None when there is no such scope.
    """

    allowed: bool
    reason: str
    deciding_rule: str
    steps: tuple[Step, ...]
    scope_version: int | None
