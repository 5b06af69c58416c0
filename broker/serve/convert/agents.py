"""Agents' requests: from messages to what the workflows take."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from credbroker.v1 import credential_service_pb2, task_pb2, task_service_pb2

from broker import config
from broker.deciding import IssueRequest
from broker.model import TaskSpec
from broker.serve.convert.checks import MAX_PURPOSE, SECOND, Checks
from broker.serve.convert.structs import read_struct

MAX_DECLARED_SCOPES: Final = 32


@dataclass(frozen=True, slots=True)
class NewTask:
    """What an agent wants to start."""

    request_id: str | None
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Renewal:
    """What an agent wants to prolong."""

    issuance_id: str
    ttl: timedelta | None


def new_task(message: task_service_pb2.StartTaskRequest, bounds: config.Tasks) -> NewTask:
    """Check a request to start a task."""
    checks = Checks()
    task = NewTask(
        request_id=checks.optional_identifier(message.request_id, "request_id"),
        spec=_task_spec(checks, message.spec, "spec", bounds),
    )
    checks.done()
    return task


def issue_request(message: credential_service_pb2.IssueCredentialRequest, bounds: config.Tasks) -> IssueRequest:
    """Check a request for a credential."""
    checks = Checks()
    request = IssueRequest(
        request_id=checks.optional_identifier(message.request_id, "request_id"),
        task=_task(checks, message, bounds),
        scope=checks.scope_name(message.scope, "scope"),
        parameters=read_struct(checks, message.parameters, "parameters") if message.HasField("parameters") else {},
        ttl=checks.duration(message.ttl, "ttl") if message.HasField("ttl") else None,
    )
    checks.done()
    return request


def renewal(message: credential_service_pb2.RenewCredentialRequest) -> Renewal:
    """Check a request to prolong a credential."""
    checks = Checks()
    wanted = Renewal(
        issuance_id=checks.identifier(message.issuance_id, "issuance_id"),
        ttl=checks.duration(message.ttl, "ttl") if message.HasField("ttl") else None,
    )
    checks.done()
    return wanted


def _task_spec(checks: Checks, message: task_pb2.TaskSpec, field: str, bounds: config.Tasks) -> TaskSpec:
    timeout = bounds.default_timeout
    if message.HasField("timeout"):
        timeout = checks.duration(message.timeout, f"{field}.timeout", longest=bounds.max_timeout)
    heartbeat = None
    if message.HasField("heartbeat_interval"):
        heartbeat = checks.duration(
            message.heartbeat_interval, f"{field}.heartbeat_interval", shortest=SECOND, longest=bounds.max_timeout
        )
    return TaskSpec(
        purpose=checks.text(message.purpose, f"{field}.purpose", longest=MAX_PURPOSE),
        labels=checks.labels(message.labels, f"{field}.labels"),
        timeout=timeout,
        heartbeat_interval=heartbeat,
        declared_scopes=_declared(checks, message.declared_scopes, f"{field}.declared_scopes"),
    )


def _task(
    checks: Checks, message: credential_service_pb2.IssueCredentialRequest, bounds: config.Tasks
) -> str | TaskSpec:
    match message.WhichOneof("task"):
        case "task_id":
            return checks.identifier(message.task_id, "task_id")
        case "new_task":
            return _task_spec(checks, message.new_task, "new_task", bounds)
        case _:
            checks.violate("task", "must be either task_id or new_task")
            return ""


def _declared(checks: Checks, names: Sequence[str], field: str) -> tuple[str, ...]:
    if len(names) > MAX_DECLARED_SCOPES:
        checks.violate(field, f"must be at most {MAX_DECLARED_SCOPES} scopes")
        return ()
    if len(set(names)) != len(names):
        checks.violate(field, "must not name a scope twice")
    return tuple(checks.scope_name(name, f"{field}[{index}]") for index, name in enumerate(names))
