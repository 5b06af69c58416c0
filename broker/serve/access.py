"""Who may call what: one closed table. An RPC that is not in it is not served.

The server compares the table with what it is about to serve before it opens a
port, so that no RPC is open, or dead, by omission.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from google.protobuf.descriptor import ServiceDescriptor

from broker.model import Role


class _Anyone(Enum):
    PUBLIC = "public"


PUBLIC: Final = _Anyone.PUBLIC
"""Callers need no identity."""

Rule: TypeAlias = frozenset[Role] | Literal[_Anyone.PUBLIC]
AccessTable: TypeAlias = Mapping[str, Rule]

_AGENT = frozenset({Role.AGENT})
_ADMIN = frozenset({Role.ADMIN})
_AUDITOR = frozenset({Role.AUDITOR})
_OPERATORS = _ADMIN | _AUDITOR

_TABLE: dict[str, Rule] = {
    "credbroker.v1.TaskService/StartTask": _AGENT,
    "credbroker.v1.TaskService/GetTask": _AGENT | _OPERATORS,
    "credbroker.v1.TaskService/ListTasks": _AGENT | _OPERATORS,
    "credbroker.v1.TaskService/HeartbeatTask": _AGENT,
    "credbroker.v1.TaskService/CompleteTask": _AGENT,
    "credbroker.v1.CredentialService/IssueCredential": _AGENT,
    "credbroker.v1.CredentialService/RenewCredential": _AGENT,
    "credbroker.v1.CredentialService/RevokeCredential": _AGENT,
    "credbroker.v1.ScopeService/CreateScope": _ADMIN,
    "credbroker.v1.ScopeService/GetScope": _OPERATORS,
    "credbroker.v1.ScopeService/ListScopes": _OPERATORS,
    "credbroker.v1.ScopeService/UpdateScope": _ADMIN,
    "credbroker.v1.ScopeService/DeleteScope": _ADMIN,
    "credbroker.v1.ScopeService/ExplainAccess": _ADMIN,
    "credbroker.v1.LockService/CreateLock": _ADMIN,
    "credbroker.v1.LockService/ListLocks": _OPERATORS,
    "credbroker.v1.LockService/DeleteLock": _ADMIN,
    "credbroker.v1.RevocationService/RevokeIssuances": _ADMIN,
    "credbroker.v1.RevocationService/ListRevocations": _OPERATORS,
    "credbroker.v1.StatusService/GetStatus": _OPERATORS,
    "credbroker.v1.AuditService/ListIssuances": _AUDITOR,
    "credbroker.v1.AuditService/GetIssuance": _AUDITOR,
    "credbroker.v1.AuditService/ListAuditEvents": _AUDITOR,
    "grpc.health.v1.Health/Check": PUBLIC,
    "grpc.health.v1.Health/List": PUBLIC,
    "grpc.health.v1.Health/Watch": PUBLIC,
}
_REFLECTION: dict[str, Rule] = {"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": PUBLIC}

IN_DOUBT_TOO: Final = frozenset(
    {
        "credbroker.v1.TaskService/CompleteTask",
        "credbroker.v1.CredentialService/RevokeCredential",
        "credbroker.v1.LockService/CreateLock",
        "credbroker.v1.RevocationService/RevokeIssuances",
        "credbroker.v1.StatusService/GetStatus",
    }
)
"""What goes on while the clock is in doubt: what can only take back or refuse, and telling what is wrong."""


def access_table(*, reflection: bool) -> AccessTable:
    """Return the table: full name of the RPC → roles, of which the caller needs one."""
    return MappingProxyType(_TABLE | _REFLECTION if reflection else _TABLE)


def check_complete(table: AccessTable, services: Iterable[ServiceDescriptor]) -> None:
    """Check that the table lists exactly the RPCs of these services.

    Raises:
        RuntimeError: with the RPCs that are missing or superfluous.
    """
    served = {f"{service.full_name}/{method.name}" for service in services for method in service.methods}
    missing = sorted(served - table.keys())
    superfluous = sorted(table.keys() - served)
    problems = [f"{', '.join(missing)} missing"] if missing else []
    problems += [f"{', '.join(superfluous)} superfluous"] if superfluous else []
    if problems:
        raise RuntimeError(f"the access table does not match what is served: {'; '.join(problems)}")
