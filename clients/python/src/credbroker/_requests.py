"""What callers say, checked and put into the contract's messages. Nothing is sent here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from credbroker._settings import seconds
from credbroker._wire import to_duration, to_struct
from credbroker.v1 import credential_service_pb2, task_pb2


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for, whichever request carries it."""

    template: credential_service_pb2.IssueCredentialRequest
    ttl: timedelta | None

    @property
    def key(self) -> bytes:
        """Equal for asks that ask for the same."""
        return self.template.SerializeToString(deterministic=True)


def make_ask(scope: str, parameters: Mapping[str, object] | None, ttl: object, named: Mapping[str, object]) -> Ask:
    """Put an ask together.

    Args:
        scope: Name of the scope.
        parameters: Parameters given as a mapping.
        ttl: A timedelta, or None for the scope's default.
        named: Parameters given by keyword.

    Raises:
        TypeError: when a parameter is given twice or is not JSON, or the ttl
            is no timedelta.
        ValueError: when a value cannot be sent.
    """
    given = parameters or {}
    twice = sorted(set(given) & set(named))
    if twice:
        raise TypeError(f"parameters given twice: {', '.join(twice)}")
    if not (ttl is None or isinstance(ttl, timedelta)):
        raise TypeError("ttl must be a timedelta; a parameter of that name goes into the mapping after the scope")
    template = credential_service_pb2.IssueCredentialRequest(
        scope=scope,
        parameters=to_struct({**given, **named}),
        ttl=None if ttl is None else to_duration(seconds(ttl, "ttl")),
    )
    return Ask(template, ttl)


def make_spec(
    purpose: str,
    labels: Mapping[str, str] | None,
    scopes: Iterable[str],
    timeout: float | timedelta | None,
    heartbeat_interval: float | timedelta | None,
) -> task_pb2.TaskSpec:
    """Put a task's description together.

    Raises:
        TypeError: when an argument is of a wrong type.
        ValueError: when a duration is not longer than zero.
    """
    if isinstance(scopes, str):
        raise TypeError("scopes must be several names, such as ['reports-db']")
    lasting = None if timeout is None else seconds(timeout, "timeout")
    beating = None if heartbeat_interval is None else seconds(heartbeat_interval, "heartbeat_interval")
    return task_pb2.TaskSpec(
        purpose=purpose,
        labels=dict(labels or {}),
        timeout=to_duration(lasting),
        heartbeat_interval=to_duration(beating),
        declared_scopes=list(scopes),
    )
