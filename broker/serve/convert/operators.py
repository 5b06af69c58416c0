"""Operators' requests: from messages to what the workflows take."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from credbroker.v1 import lock_pb2, lock_service_pb2, revocation_pb2, revocation_service_pb2, scope_service_pb2

from broker.model import LockKind, Selection
from broker.scopes import Question
from broker.serve.convert.checks import MAX_PURPOSE, Checks
from broker.serve.convert.structs import read_struct

MAX_REASON: Final = 500
MAX_ETAG: Final = 128


@dataclass(frozen=True, slots=True)
class ScopeChange:
    """A new document, and the etag of the version that it replaces."""

    document: str
    etag: str


@dataclass(frozen=True, slots=True)
class NewLock:
    """What an admin wants to lock."""

    kind: LockKind
    target: str
    reason: str
    ttl: timedelta | None


def new_scope(message: scope_service_pb2.CreateScopeRequest) -> str:
    """Return the document of a new scope; reading it is the workflow's."""
    checks = Checks()
    _document(checks, message.document)
    checks.done()
    return message.document


def changed_scope(message: scope_service_pb2.UpdateScopeRequest) -> ScopeChange:
    """Check a request to change a scope."""
    checks = Checks()
    change = ScopeChange(_document(checks, message.document), _etag(checks, message.etag))
    checks.done()
    return change


def scope_version(message: scope_service_pb2.GetScopeRequest) -> tuple[str, int | None]:
    """Return which scope is asked for, and which version; None for the current one."""
    checks = Checks()
    name = checks.scope_name(message.name, "name")
    if message.version < 0:
        checks.violate("version", "must not be negative")
    checks.done()
    return name, message.version or None


def deleted_scope(message: scope_service_pb2.DeleteScopeRequest) -> tuple[str, str]:
    """Return the name and the etag of the scope to be deleted."""
    checks = Checks()
    wanted = checks.scope_name(message.name, "name"), _etag(checks, message.etag)
    checks.done()
    return wanted


def question(message: scope_service_pb2.ExplainAccessRequest) -> Question:
    """Check an admin's question about a scope."""
    checks = Checks()
    found = Question(
        agent_uri=checks.agent_uri(message.agent.uri, "agent.uri"),
        claims=read_struct(checks, message.agent.claims, "agent.claims"),
        scope=checks.scope_name(message.scope, "scope"),
        parameters=read_struct(checks, message.parameters, "parameters"),
        ttl=checks.duration(message.ttl, "ttl") if message.HasField("ttl") else None,
        task_labels=checks.labels(message.task_labels, "task_labels"),
        task_purpose=checks.text(message.task_purpose, "task_purpose", shortest=0, longest=MAX_PURPOSE),
    )
    checks.done()
    return found


def new_lock(message: lock_service_pb2.CreateLockRequest) -> NewLock:
    """Check what an admin wants to lock."""
    checks = Checks()
    kind, target = _lock_target(checks, message.target)
    lock = NewLock(
        kind=kind,
        target=target,
        reason=checks.text(message.reason, "reason", longest=MAX_REASON),
        ttl=checks.duration(message.ttl, "ttl") if message.HasField("ttl") else None,
    )
    checks.done()
    return lock


def selection(message: revocation_service_pb2.RevokeIssuancesRequest) -> tuple[Selection, str]:
    """Return what an admin wants to take back, and why."""
    checks = Checks()
    wanted = _selected(checks, message.selector)
    reason = checks.text(message.reason, "reason", longest=MAX_REASON)
    checks.done()
    return wanted, reason


def _document(checks: Checks, text: str) -> str:
    if not text:
        checks.violate("document", "is required")
    return text


def _etag(checks: Checks, value: str) -> str:
    return checks.text(value, "etag", longest=MAX_ETAG)


def _selected(checks: Checks, selector: revocation_pb2.RevocationSelector) -> Selection:
    match selector.WhichOneof("selector"):
        case "agent":
            return Selection(agent=checks.agent_uri(selector.agent, "selector.agent"))
        case "scope":
            if selector.scope.version < 0:
                checks.violate("selector.scope.version", "must not be negative")
            return Selection(
                scope=checks.scope_name(selector.scope.name, "selector.scope.name"),
                scope_version=selector.scope.version or None,
            )
        case "task_id":
            return Selection(task_id=checks.identifier(selector.task_id, "selector.task_id"))
        case "issuance_id":
            return Selection(issuance_id=checks.identifier(selector.issuance_id, "selector.issuance_id"))
        case _:
            checks.violate("selector", "must be an agent, a scope, a task_id or an issuance_id")
            return Selection()


def _lock_target(checks: Checks, target: lock_pb2.LockTarget) -> tuple[LockKind, str]:
    match target.WhichOneof("target"):
        case "agent":
            return LockKind.AGENT, checks.agent_uri(target.agent, "target.agent")
        case "agent_pattern":
            return LockKind.AGENT_PATTERN, checks.agent_uri(target.agent_pattern, "target.agent_pattern")
        case "task_id":
            return LockKind.TASK, checks.identifier(target.task_id, "target.task_id")
        case "scope":
            return LockKind.SCOPE, checks.scope_name(target.scope, "target.scope")
        case _:
            checks.violate("target", "must be an agent, an agent_pattern, a task_id or a scope")
            return LockKind.AGENT, ""
