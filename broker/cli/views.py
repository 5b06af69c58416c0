"""How each kind of record looks as a row of a table."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from credbroker.v1.audit_event_pb2 import AUDIT_OUTCOME_SUCCESS, AuditEvent, AuditOutcome
from credbroker.v1.issuance_pb2 import Issuance, IssuanceState, Revocability
from credbroker.v1.lock_pb2 import Lock
from credbroker.v1.revocation_pb2 import Revocation
from credbroker.v1.scope_pb2 import Scope
from credbroker.v1.task_pb2 import RevocationState, Task, TaskState
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.cli.table import Column
from broker.cli.times import full_time, short_time, span

SHORT_ID = 8
STYLES = {
    "active": "green",
    "minting": "yellow",
    "revoking": "yellow",
    "pending": "yellow",
    "failed": "red",
    "locked": "red",
    "denied": "red",
    "failure": "red",
}
_MARKS = {"success": ("✓", "green"), "denied": ("✗", "red"), "failure": ("!", "red")}
_TARGETS = {"agent": "agent", "agent_pattern": "pattern", "task_id": "task", "scope": "scope"}

Row = TypeVar("Row", bound=Message)


def when(moment: Timestamp) -> datetime:
    """Return a timestamp as an aware datetime in UTC."""
    return moment.ToDatetime(UTC)


def short_id(identifier: str) -> str:
    """Return the end of an identifier: the start of a UUIDv7 is only its time."""
    return f"…{identifier[-SHORT_ID:]}" if len(identifier) > SHORT_ID else identifier


def short_agent(uri: str) -> str:
    """Return the part of a URI that tells the agents of one issuer or trust domain apart."""
    if uri.startswith("spiffe://"):
        _, slash, path = uri.removeprefix("spiffe://").partition("/")
        return f"…{slash}{path}" if path else uri
    _, mark, subject = uri.partition("#")
    return f"…{mark}{subject}" if mark else uri


def enum_name(kind: EnumDescriptor, value: int) -> str:
    """Return an enum value as people read it, such as ``deadline_exceeded``."""
    found = kind.values_by_number.get(value)
    if found is None:
        return str(value)
    return found.name.removeprefix(prefix_of(kind)).lower()


def prefix_of(kind: EnumDescriptor) -> str:
    """Return what every value of an enum starts with."""
    return kind.values_by_number[0].name.removesuffix("UNSPECIFIED")


def task_state(task: Task) -> str:
    """Return the task's state in words."""
    return enum_name(TaskState.DESCRIPTOR, task.state)


def issuance_state(issuance: Issuance) -> str:
    """Return the issuance's state in words."""
    return enum_name(IssuanceState.DESCRIPTOR, issuance.state)


def revocation(record: Task | Issuance) -> str:
    """Return whether Vault confirmed, in words."""
    return enum_name(RevocationState.DESCRIPTOR, record.revocation).replace("_", " ")


def revocability(issuance: Issuance) -> str:
    """Return how the credential can be taken back, in words."""
    return enum_name(Revocability.DESCRIPTOR, issuance.revocability).replace("_", " ")


def outcome(event: AuditEvent) -> str:
    """Return how what the event records came out."""
    return enum_name(AuditOutcome.DESCRIPTOR, event.outcome)


def mark_of(state: str) -> tuple[str, str]:
    """Return the mark of an outcome, and its colour."""
    return _MARKS.get(state, ("?", ""))


def marked(event: AuditEvent) -> str:
    """Return what happened, marked with how it came out."""
    return f"{mark_of(outcome(event))[0]} {event.type}"


def about(event: AuditEvent) -> str:
    """Return why an event went wrong, if it did, and the scope concerned."""
    reason = event.reason if event.outcome != AUDIT_OUTCOME_SUCCESS else ""
    return " ".join(part for part in (reason, event.scope) if part)


def holds(lock: Lock) -> str:
    """Return what a lock holds, in words."""
    kind = lock.target.WhichOneof("target")
    return "nothing" if kind is None else f"{_TARGETS[kind]} {getattr(lock.target, kind)}"


def confirmation(confirmed: int, pending: int) -> str:
    """Say what Vault has confirmed of what was put up for revocation, and what to do about the rest."""
    if not pending:
        return "Vault has confirmed that nothing of it is left"
    return (
        f"Vault has confirmed {confirmed}, {pending} pending: the broker keeps asking, "
        "and `broker revocations` shows what holds them up"
    )


def _ends(lock: Lock) -> str:
    return full_time(when(lock.expire_time)) if lock.HasField("expire_time") else "when lifted"


def _id(title: str, identifier: Callable[[Row], str], *, only_wide: bool = False) -> Column[Row]:
    return Column(title, lambda row: short_id(identifier(row)), full=identifier, only_wide=only_wide)


def _time(title: str, moment: Callable[[Row], Timestamp], *, only_wide: bool = False) -> Column[Row]:
    return Column(
        title,
        lambda row: short_time(when(moment(row))),
        full=lambda row: full_time(when(moment(row))),
        only_wide=only_wide,
    )


def _agent(title: str, uri: Callable[[Row], str]) -> Column[Row]:
    return Column(title, lambda row: short_agent(uri(row)), full=uri, flexible=True, keep_end=True)


def _state(title: str, state: Callable[[Row], str]) -> Column[Row]:
    return Column(title, state, style=lambda row: STYLES.get(state(row), ""))


TASKS: tuple[Column[Task], ...] = (
    _id("TASK", lambda task: task.id),
    _time("STARTED (UTC)", lambda task: task.create_time),
    _state("STATE", task_state),
    _agent("AGENT", lambda task: task.agent),
    Column("PURPOSE", lambda task: task.purpose, flexible=True),
    _time("DEADLINE (UTC)", lambda task: task.deadline, only_wide=True),
    Column("REVOCATION", revocation, only_wide=True),
)

ISSUANCES: tuple[Column[Issuance], ...] = (
    _id("ISSUANCE", lambda issuance: issuance.id),
    _time("ASKED (UTC)", lambda issuance: issuance.create_time),
    Column("SCOPE", lambda issuance: issuance.scope, flexible=True),
    _state("STATE", issuance_state),
    Column(
        "FOR",
        lambda issuance: span(when(issuance.expire_time) - when(issuance.create_time)),
    ),
    _agent("AGENT", lambda issuance: issuance.agent),
    _id("TASK", lambda issuance: issuance.task_id, only_wide=True),
    _time("EXPIRES (UTC)", lambda issuance: issuance.expire_time, only_wide=True),
    Column("END", lambda issuance: issuance.end_reason, only_wide=True),
    Column("REVOCATION", revocation, only_wide=True),
)

EVENTS: tuple[Column[AuditEvent], ...] = (
    _time("TIME (UTC)", lambda event: event.time),
    Column("EVENT", marked, full=lambda event: event.type, style=lambda event: mark_of(outcome(event))[1]),
    _agent("ACTOR", lambda event: event.actor),
    Column("ABOUT", about, flexible=True, only_narrow=True),
    Column("OUTCOME", outcome, only_wide=True),
    Column("REASON", lambda event: event.reason, only_wide=True),
    Column("SCOPE", lambda event: event.scope, only_wide=True),
    _id("TASK", lambda event: event.task_id, only_wide=True),
    _id("ISSUANCE", lambda event: event.issuance_id, only_wide=True),
    Column("DETAIL", lambda event: event.detail, only_wide=True),
)

LOCKS: tuple[Column[Lock], ...] = (
    _id("LOCK", lambda lock: lock.id),
    Column("HOLDS", holds, flexible=True),
    Column("REASON", lambda lock: lock.reason, flexible=True),
    Column("ENDS (UTC)", _ends),
    _agent("BY", lambda lock: lock.creator),
    _time("SINCE (UTC)", lambda lock: lock.create_time, only_wide=True),
)

REVOCATIONS: tuple[Column[Revocation], ...] = (
    _time("SINCE (UTC)", lambda revocation: revocation.request_time),
    _id("TASK", lambda revocation: revocation.task_id),
    _id("ISSUANCE", lambda revocation: revocation.issuance_id),
    Column("TRIED", lambda revocation: str(revocation.attempts)),
    Column("LAST ERROR", lambda revocation: revocation.last_error, flexible=True),
    Column("WHY", lambda revocation: revocation.reason, only_wide=True),
    _time("NEXT TRY (UTC)", lambda revocation: revocation.retry_time, only_wide=True),
    Column("ACCESSOR", lambda revocation: revocation.vault_accessor, only_wide=True),
    Column("LEASE", lambda revocation: revocation.vault_lease_id, only_wide=True),
)

SCOPES: tuple[Column[Scope], ...] = (
    Column("SCOPE", lambda scope: scope.name, flexible=True),
    Column("VERSION", lambda scope: str(scope.version)),
    Column("KIND", lambda scope: scope.kind),
    _time("CHANGED (UTC)", lambda scope: scope.create_time),
    Column("DESCRIPTION", lambda scope: scope.description, flexible=True),
    Column("BY", lambda scope: scope.creator, only_wide=True),
)
