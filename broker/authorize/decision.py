"""The decision: one sequence of checks, whether it counts or is only explained.

::

    locks              nothing holds the agent, the task or the scope
    declared           the task declared the scope, if it declared any
    scope, spec.who    there is such a scope, and an entry means the identity
    spec.parameters    the parameters satisfy the schema
    spec.ttl           the time to live is within the maximum; the deadline cuts it
    spec.when          the condition is exactly true

What is refused before an entry of ``spec.who`` means the identity does not
tell whether there is such a scope.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.authorize.locks import hold
from broker.authorize.records import Ask, Explanation, Grant, Step, TaskView
from broker.authorize.scope import CompiledScope
from broker.authorize.sight import Sight
from broker.authorize.who import WhoRule
from broker.errors import (
    BrokerError,
    FieldViolation,
    Locked,
    ParametersInvalid,
    ScopeDenied,
    ScopeNotDeclared,
    TaskEnded,
    TtlExceeded,
)
from broker.model import Identity, JsonObject, Lock

_ZERO: Final = timedelta(0)


def decide(ask: Ask, scope: CompiledScope | None, locks: Sequence[Lock]) -> Grant:
    """Decide whether a request is granted.

    Args:
        ask: The request.
        scope: The current version of the scope it names; None when there is
            none.
        locks: Locks that were not lifted.

    Raises:
        Locked: when a lock holds the agent, the task, or a scope that the
            agent is entitled to.
        ScopeNotDeclared: when the task declared scopes and not this one.
        ScopeDenied: when there is no such scope, it is not for this identity,
            or its condition is not true; the caller is not told which.
        ParametersInvalid: when the parameters do not satisfy the schema.
        TtlExceeded: when the time to live is beyond the scope's maximum.
        TaskEnded: when the task's deadline has passed.
    """
    return _Decision(ask.identity, ask.task, ask.scope, scope, ask.now).grant(ask, locks)


def explain(ask: Ask, scope: CompiledScope | None, locks: Sequence[Lock]) -> Explanation:
    """Say how `decide` would decide, and which rule does."""
    decision = _Decision(ask.identity, ask.task, ask.scope, scope, ask.now)
    version = None if scope is None else scope.version
    try:
        grant = decision.grant(ask, locks)
    except BrokerError as refusal:
        return Explanation(False, refusal.reason, decision.steps[-1].rule, tuple(decision.steps), version)
    return Explanation(True, "", grant.rule, tuple(decision.steps), version)


def check_declared(
    identity: Identity,
    task: TaskView,
    scopes: Mapping[str, CompiledScope],
    locks: Sequence[Lock],
    now: datetime,
) -> None:
    """Check the scopes that a task declares, as far as nothing but the task must be known.

    Raises:
        Locked: when a lock holds the agent, the task, or a scope that the
            agent is entitled to.
        ScopeDenied: when a scope would not be granted; only the detail says
            which.
    """
    for name in task.declared_scopes:
        try:
            _Decision(identity, task, name, scopes.get(name), now).foresee(locks)
        except ScopeDenied as refusal:
            raise ScopeDenied(f"declared scope {name!r}: {refusal.detail}") from None


class _Decision:
    """The checks of one decision, and the steps taken so far."""

    def __init__(
        self, identity: Identity, task: TaskView, name: str, scope: CompiledScope | None, now: datetime
    ) -> None:
        if scope is not None and scope.name != name:
            raise RuntimeError(f"scope {scope.name!r} cannot decide about {name!r}")
        self.steps: list[Step] = []
        self._identity = identity
        self._task = task
        self._name = name
        self._scope = scope
        self._now = now

    def grant(self, ask: Ask, locks: Sequence[Lock]) -> Grant:
        self._check_locks(locks)
        self._check_declared()
        scope, entry = self._entitlement()
        self._check_parameters(scope, ask)
        ttl, max_ttl = self._check_ttl(scope, ask)
        self._check_condition(scope, ask.parameters, ttl)
        spec = scope.document.spec
        return Grant(
            scope=scope.name,
            version=scope.version,
            parameters=ask.parameters,
            ttl=ttl,
            max_ttl=max_ttl,
            mapping=spec.credential,
            limits=spec.limits,
            rule=entry.where,
        )

    def foresee(self, locks: Sequence[Lock]) -> None:
        self._check_locks(locks)
        scope, _ = self._entitlement()
        if scope.condition is not None and not scope.condition.needs_request:
            self._check_condition(scope, {}, _ZERO)

    def _pass(self, rule: str, detail: str) -> None:
        self.steps.append(Step(rule, True, detail))

    def _refused(self, rule: str, refusal: BrokerError) -> BrokerError:
        self.steps.append(Step(rule, False, refusal.detail))
        return refusal

    def _check_locks(self, locks: Sequence[Lock]) -> None:
        # First what holds whatever the scope: it must not depend on the scope asked for.
        for scope in (None, self._name):
            lock = hold(locks, agent=self._identity.uri, task_id=self._task.id, scope=scope, now=self._now)
            if lock is not None:
                # A lock on a scope tells that it exists, hence only those who may know.
                told = scope is None or self._entry() is not None
                raise self._refused("locks", (Locked if told else ScopeDenied)(f"lock {lock.id} holds: {lock.reason}"))
        self._pass("locks", "no lock holds")

    def _check_declared(self) -> None:
        declared = self._task.declared_scopes
        if declared and self._name not in declared:
            raise self._refused("declared", ScopeNotDeclared(f"the task declared {', '.join(declared)} only"))
        self._pass("declared", "the task declared it" if declared else "the task declared no scopes")

    def _entry(self) -> WhoRule | None:
        """Return the first entry that means the identity."""
        entries = () if self._scope is None else self._scope.who
        return next((entry for entry in entries if not entry.mismatch(self._identity)), None)

    def _entitlement(self) -> tuple[CompiledScope, WhoRule]:
        if self._scope is None:
            raise self._refused("scope", ScopeDenied(f"there is no scope {self._name!r}"))
        for entry in self._scope.who:
            mismatch = entry.mismatch(self._identity)
            self.steps.append(Step(entry.where, not mismatch, mismatch or "means the agent"))
            if not mismatch:
                return self._scope, entry
        raise self._refused("spec.who", ScopeDenied(f"no entry means {self._identity.uri}"))

    def _check_parameters(self, scope: CompiledScope, ask: Ask) -> None:
        try:
            scope.parameters.check(ask.parameters)
        except ParametersInvalid as refusal:
            raise self._refused("spec.parameters", refusal) from None
        self._pass("spec.parameters", "the parameters satisfy the schema")

    def _check_ttl(self, scope: CompiledScope, ask: Ask) -> tuple[timedelta, timedelta]:
        """Return time to live and its maximum, both within the task's deadline."""
        bounds = scope.document.spec.ttl
        ttl = bounds.default if ask.ttl is None else ask.ttl
        seconds, most = ttl.total_seconds(), bounds.max.total_seconds()
        if not _ZERO < ttl <= bounds.max:
            detail = f"{seconds:g} s asked for, of at most {most:g} s"
            wanted = FieldViolation("ttl", f"must be more than 0 and at most {most:g} seconds")
            raise self._refused("spec.ttl", TtlExceeded(detail, violations=(wanted,)))
        left = self._task.deadline - self._now
        if left <= _ZERO:
            raise self._refused("spec.ttl", TaskEnded("the task's deadline has passed"))
        self._pass("spec.ttl", f"{seconds:g} s of at most {most:g} s, and {left.total_seconds():g} s to the deadline")
        return min(ttl, left), min(bounds.max, left)

    def _check_condition(self, scope: CompiledScope, parameters: JsonObject, ttl: timedelta) -> None:
        condition = scope.condition
        if condition is None:
            return
        sight = Sight(self._identity, self._task, parameters, ttl, self._now, condition.agent)
        try:
            condition.check({root: sight.of(root) for root in condition.roots})
        except ScopeDenied as refusal:
            raise self._refused("spec.when", refusal) from None
        self._pass("spec.when", "the condition is true")
