"""From a gRPC status to the error tree."""

from collections.abc import Iterable
from datetime import timedelta
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from credbroker._errors import (
    BY_REASON,
    AlreadyExists,
    BrokerFailed,
    Error,
    FailedPrecondition,
    FieldViolation,
    InvalidRequest,
    LimitReached,
    NotFound,
    PermissionDenied,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Untrusted,
)

DOMAIN = "credbroker.dev"
DETAILS_KEY = "grpc-status-details-bin"
MAX_TEXT = 1000
MAX_DELAY_SECONDS = 3600

_NOT_SENT: dict[type[Error], tuple[str, ...]] = {
    Untrusted: ("SSL_ERROR_SSL", "Hostname Verification Check failed"),
    Unreachable: ("failed to connect to all addresses", "errors resolving"),
}

_BY_CODE: dict[grpc.StatusCode, type[Error]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # The other side gave the call up, as a server does that shuts down.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
}


def translate(error: grpc.RpcError) -> Error:
    """Return the library's error for a failed call."""
    code = error.code()
    status = _details(error)
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, request, retry):
            _unpack(detail.value if detail.Is(message.DESCRIPTOR) else None, message)
    message = printable(error.details() or "")
    if info.domain != DOMAIN:
        info.Clear()
    kind = BY_REASON.get(info.reason) or _by_code(code, message)
    return kind(
        message or f"the call failed with {code.name}",
        reason=printable(info.reason),
        violations=tuple(
            FieldViolation(printable(item.field), printable(item.description)) for item in request.field_violations
        ),
        metadata={printable(name): printable(value) for name, value in info.metadata.items()},
        retry_after=_delay(retry),
    )


def printable(text: str) -> str:
    """Return text that is safe on a terminal and in a log: bounded, control characters escaped."""
    cut = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _by_code(code: grpc.StatusCode, message: str) -> type[Error]:
    # gRPC tells these apart in words alone. Should it come to word them
    # otherwise, needless attempts are all that follows.
    if code is grpc.StatusCode.UNAVAILABLE:
        for kind, marks in _NOT_SENT.items():
            if any(mark in message for mark in marks):
                return kind
    return _BY_CODE.get(code, BrokerFailed)


def _details(error: grpc.RpcError) -> status_pb2.Status:
    status = status_pb2.Status()
    # The stubs know the blocking side's items alone; asyncio's are plain pairs.
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            _unpack(value, status)
    return status


def _unpack(
    value: bytes | None,
    message: status_pb2.Status
    | error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RetryInfo,
) -> None:
    """Fill the message, or leave it empty when the bytes are not one."""
    if value is None:
        return
    try:
        message.ParseFromString(value)
    except DecodeError:
        message.Clear()


def _delay(retry: error_details_pb2.RetryInfo) -> timedelta | None:
    if not retry.HasField("retry_delay"):
        return None
    delay = retry.retry_delay
    seconds = min(max(delay.seconds, 0), MAX_DELAY_SECONDS)
    return timedelta(seconds=seconds, microseconds=max(delay.nanos, 0) / 1000)
