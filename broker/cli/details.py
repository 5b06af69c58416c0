"""One record in full, for people: its facts, and what happened to it."""

import json
from collections.abc import Sequence

from credbroker.v1.audit_event_pb2 import AuditEvent
from credbroker.v1.issuance_pb2 import Issuance
from credbroker.v1.scope_pb2 import Scope
from credbroker.v1.scope_service_pb2 import ExplainAccessResponse
from credbroker.v1.task_pb2 import Task
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from broker.cli.output import say
from broker.cli.times import clock_time, full_time, span
from broker.cli.views import STYLES, issuance_state, mark_of, outcome, revocability, revocation, task_state, when
from broker.model import JsonValue
from broker.terminal import printable, printable_lines

Facts = Sequence[tuple[str, str]]

# Said above the timeline already, or of use to programs alone.
_QUIET_ATTRIBUTES = frozenset({"evidence", "evidence_sha256", "fingerprint", "kind", "parameters"})


def facts(title: str, pairs: Facts) -> Text:
    """Return a heading and aligned names and values; empty values are left out."""
    width = max(len(name) for name, _ in pairs) + 2
    text = Text(printable(title), "bold")
    for name, value in pairs:
        if value:
            text.append(f"\n  {name:<{width}}", "dim").append(printable(value), STYLES.get(value, "not bold"))
    return text


def show_task(task: Task) -> None:
    """Print a task."""
    say(
        facts(
            f"Task {task.id}",
            (
                ("Purpose", task.purpose),
                ("Agent", task.agent),
                ("State", task_state(task)),
                ("Labels", ", ".join(f"{key}={task.labels[key]}" for key in sorted(task.labels))),
                ("Declared", ", ".join(task.declared_scopes)),
                ("Started", _moment(task, "create_time")),
                ("Deadline", _moment(task, "deadline")),
                ("Heartbeat", _heartbeat(task)),
                ("Ended", _moment(task, "end_time")),
                ("Revocation", _join(revocation(task), _moment(task, "revocation_confirm_time"))),
            ),
        )
    )


def show_issuance(issuance: Issuance, events: Sequence[AuditEvent]) -> None:
    """Print an issuance with its life."""
    say(
        facts(
            f"Issuance {issuance.id}",
            (
                ("Agent", issuance.agent),
                ("Task", issuance.task_id),
                ("Scope", f"{issuance.scope} version {issuance.scope_version} ({issuance.kind})"),
                ("Parameters", one_line(issuance.parameters)),
                ("State", issuance_state(issuance)),
                ("Why it ended", issuance.end_reason),
                ("Asked", _moment(issuance, "create_time")),
                ("Expires", _expiry(issuance)),
                ("Renewed", _moment(issuance, "renew_time")),
                ("Revocable", revocability(issuance)),
                ("Revocation", _join(revocation(issuance), _moment(issuance, "revoke_request_time"), "asked for")),
                ("Dead since", _moment(issuance, "end_time")),
                ("Fingerprint", issuance.fingerprint),
                ("Accessor", issuance.vault_accessor),
                ("Lease", issuance.vault_lease_id),
            ),
        )
    )
    say()
    say(timeline(events))


def timeline(events: Sequence[AuditEvent]) -> Text:
    """Return events in the order they happened, a line each, with the time between them."""
    text = Text("Timeline", "bold")
    previous: AuditEvent | None = None
    for event in events:
        at = when(event.time)
        if previous is None or when(previous.time).date() != at.date():
            text.append(f"\n  {at:%Y-%m-%d} (UTC)", "dim")
        mark, style = mark_of(outcome(event))
        text.append(f"\n  {clock_time(at)}  ", "dim").append(mark, style)
        text.append(f" {printable(event.type)}", "not bold").append(_about(event), "dim")
        for line in (_refusal(event), _further(event.attributes)):
            if line:
                text.append(f"\n                  {line}", "dim")
        previous = event
    return text


def _about(event: AuditEvent) -> str:
    words = []
    if event.scope:
        words.append(f"{event.scope} version {event.scope_version}" if event.scope_version else event.scope)
    if event.actor and event.actor != event.agent:
        words.append(f"by {event.actor}")
    return f"  {printable(', '.join(words))}" if words else ""


def _refusal(event: AuditEvent) -> str:
    return printable(": ".join(part for part in (event.reason, event.detail) if part))


def _further(attributes: Struct) -> str:
    return one_line(attributes, leave_out=_QUIET_ATTRIBUTES)


def show_scope(scope: Scope) -> None:
    """Print a scope version and its document."""
    say(
        facts(
            f"Scope {scope.name}",
            (
                ("Version", str(scope.version)),
                ("Kind", scope.kind),
                ("Description", scope.description),
                ("Changed", _moment(scope, "create_time")),
                ("By", scope.creator),
                ("Etag", scope.etag),
            ),
        )
    )
    say()
    for line in printable_lines(scope.document.rstrip("\n")):
        say(Text(line))


def show_explanation(reply: ExplainAccessResponse, scope: str) -> None:
    """Print why an agent would or would not get a scope."""
    verdict = "would be granted" if reply.allowed else "would be refused"
    version = f" version {reply.scope_version}" if reply.scope_version else ""
    text = Text(printable(f"{scope}{version} {verdict}"), "bold green" if reply.allowed else "bold red")
    if reply.reason:
        text.append(printable(f" ({reply.reason})"))
    for step in reply.steps:
        mark, style = mark_of("success" if step.passed else "denied")
        decisive = "  <- decides" if step.rule == reply.deciding_rule and not step.passed else ""
        text.append("\n  ").append(mark, style).append(f" {printable(step.rule)}", "not bold")
        text.append(f"  {printable(step.detail)}" if step.detail else "", "dim").append(decisive, "bold")
    say(text)


def one_line(values: Struct, leave_out: frozenset[str] = frozenset()) -> str:
    """Return the fields of a struct that say something, as ``name=value``, ordered by name."""
    found = json_format.MessageToDict(values)
    said = (name for name in sorted(found) if name not in leave_out and found[name] not in (None, "", [], {}))
    return printable(" ".join(f"{name}={_plain(found[name])}" for name in said))


def _plain(value: JsonValue) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _moment(record: Task | Issuance | Scope, field: str) -> str:
    if not record.HasField(field):  # type: ignore[arg-type]  # the stubs want one literal per message
        return ""
    moment: Timestamp = getattr(record, field)
    return full_time(when(moment))


def _heartbeat(task: Task) -> str:
    if not task.HasField("heartbeat_interval"):
        return ""
    return f"every {span(task.heartbeat_interval.ToTimedelta())}, last at {full_time(when(task.last_heartbeat_time))}"


def _expiry(issuance: Issuance) -> str:
    latest = _moment(issuance, "max_expire_time")
    expires = _moment(issuance, "expire_time")
    return f"{expires}, at the latest {latest} after renewals" if latest not in ("", expires) else expires


def _join(state: str, moment: str, words: str = "at") -> str:
    return f"{state}, {words} {moment}" if moment else state
