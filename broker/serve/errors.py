"""What a caller is told: one error of the tree becomes one gRPC status.

The status carries ``google.rpc.ErrorInfo`` with the stable reason, and
``BadRequest`` and ``RetryInfo`` where they apply. An error's ``detail`` is for
the audit trail and never leaves.
"""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from broker.errors import (
    Aborted,
    AlreadyExists,
    BrokerError,
    ConfigError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MintFailed,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

DOMAIN: Final = "credbroker.dev"

# Clients refuse replies with more than 8 KiB of metadata. The details travel
# in base64, and the message once more beside them, percent-encoded; so all
# bounds are in bytes, well below that.
_MAX_DETAILS = 3 * 1024
_MAX_TEXT = 512
_MAX_METADATA = 8

CODES: Final[Mapping[type[BrokerError], grpc.StatusCode]] = MappingProxyType(
    {
        Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
        InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
        NotFound: grpc.StatusCode.NOT_FOUND,
        FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        Aborted: grpc.StatusCode.ABORTED,
        ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        # Vault refused what it was set up to refuse: only an admin's change helps.
        MintFailed: grpc.StatusCode.FAILED_PRECONDITION,
        DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        ConfigError: grpc.StatusCode.INTERNAL,
        BrokerError: grpc.StatusCode.INTERNAL,
    }
)
"""The code of each branch of the error tree."""


def code_of(error: BrokerError) -> grpc.StatusCode:
    """Return the gRPC code of an error: that of its nearest listed base."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def status_of(error: BrokerError) -> grpc.Status:
    """Return what the caller of a failed request is told."""
    status = Status(code=code_of(error).value[0], message=_plain(error.message))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key, value in islice(error.metadata.items(), _MAX_METADATA):
        info.metadata[key] = _plain(value, 256)
    status.details.add().Pack(info)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    if error.violations:
        _add_violations(status, error)
    return rpc_status.to_status(status)


def _add_violations(status: Status, error: BrokerError) -> None:
    """Add as many violations as fit, in their order."""
    request = BadRequest()
    for violation in error.violations:
        added = request.field_violations.add(
            field=_plain(violation.field, 256), description=_plain(violation.description)
        )
        if status.ByteSize() + request.ByteSize() > _MAX_DETAILS:
            request.field_violations.remove(added)
            break
    status.details.add().Pack(request)


def _plain(text: str, limit: int = _MAX_TEXT) -> str:
    """Return text that protobuf accepts, cut at a number of bytes."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
