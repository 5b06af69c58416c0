"""Short-lived credentials for the task at hand.

::

    import credbroker

    with credbroker.Client("broker.example:8443", token_file="/var/run/agent/token") as client:
        with client.task("monthly report") as task:
            credential = task.credential("reports-db", role="ro")
            connect(**credential)

`credbroker.aio.AsyncClient` is the same for asyncio. The error tree is in the
documentation of `credbroker.Error`'s module and in the README; the generated
messages of the contract are in ``credbroker.v1``.
"""

import logging

from credbroker import aio
from credbroker._client import Client, Credential, Task
from credbroker._clock import Clock, SystemClock
from credbroker._errors import (
    AlreadyExists,
    BrokerFailed,
    ClockUncertain,
    CredentialEnded,
    CredentialExpired,
    CredentialNotFound,
    Error,
    EvidenceExpired,
    EvidenceInvalid,
    EvidenceMissing,
    EvidenceReplayed,
    FailedPrecondition,
    FieldViolation,
    InvalidRequest,
    KeysUnavailable,
    LimitReached,
    Locked,
    MintFailed,
    Misconfigured,
    NotFound,
    NotRenewable,
    NotRevocable,
    Overloaded,
    ParametersInvalid,
    PermissionDenied,
    RequestIdReused,
    RoleRequired,
    ScopeDenied,
    ScopeNotDeclared,
    StoreUnavailable,
    TaskEnded,
    TaskNotFound,
    TimedOut,
    TtlExceeded,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Untrusted,
    VaultUnavailable,
)
from credbroker._issued import Revocability

__all__ = [
    "AlreadyExists",
    "BrokerFailed",
    "Client",
    "Clock",
    "ClockUncertain",
    "Credential",
    "CredentialEnded",
    "CredentialExpired",
    "CredentialNotFound",
    "Error",
    "EvidenceExpired",
    "EvidenceInvalid",
    "EvidenceMissing",
    "EvidenceReplayed",
    "FailedPrecondition",
    "FieldViolation",
    "InvalidRequest",
    "KeysUnavailable",
    "LimitReached",
    "Locked",
    "MintFailed",
    "Misconfigured",
    "NotFound",
    "NotRenewable",
    "NotRevocable",
    "Overloaded",
    "ParametersInvalid",
    "PermissionDenied",
    "RequestIdReused",
    "Revocability",
    "RoleRequired",
    "ScopeDenied",
    "ScopeNotDeclared",
    "StoreUnavailable",
    "SystemClock",
    "Task",
    "TaskEnded",
    "TaskNotFound",
    "TimedOut",
    "TtlExceeded",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Untrusted",
    "VaultUnavailable",
    "aio",
]

# Error messages and documentation show the names under which callers import.
for _name in __all__:
    if hasattr(globals()[_name], "__module__"):
        globals()[_name].__module__ = __name__

logging.getLogger("credbroker").addHandler(logging.NullHandler())
