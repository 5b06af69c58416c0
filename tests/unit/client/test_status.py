"""From gRPC statuses, well-formed and not, to the library's errors."""

from datetime import timedelta

import credbroker
import grpc
import pytest
from credbroker._status import MAX_TEXT, translate
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st


def failure(
    *details: Message, code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED, message: str | None = "m"
) -> AioRpcError:
    status = Status(code=code.value[0], message=message or "")
    for detail in details:
        status.details.add().Pack(detail)
    return AioRpcError(
        code, Metadata(), Metadata(("grpc-status-details-bin", status.SerializeToString())), details=message
    )


def test_a_reason_of_this_version() -> None:
    error = translate(failure(ErrorInfo(reason="LOCKED", domain="credbroker.dev", metadata={"a": "b"})))
    assert type(error) is credbroker.Locked
    assert error.metadata == {"a": "b"}


def test_a_reason_of_a_later_version_is_kept_and_mapped_by_code() -> None:
    error = translate(failure(ErrorInfo(reason="BUDGET_SPENT", domain="credbroker.dev")))
    assert type(error) is credbroker.PermissionDenied
    assert error.reason == "BUDGET_SPENT"
    assert str(error) == "m [BUDGET_SPENT]"


def test_a_reason_of_somebody_else_does_not_count() -> None:
    error = translate(failure(ErrorInfo(reason="LOCKED", domain="proxy.example", metadata={"task_id": "x"})))
    assert type(error) is credbroker.PermissionDenied
    assert (error.reason, error.metadata) == ("", {})


def test_a_status_without_a_message() -> None:
    error = translate(failure(code=grpc.StatusCode.UNAVAILABLE, message=None))
    assert str(error) == "the call failed with UNAVAILABLE; try again later"


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (Duration(seconds=2, nanos=500_000_000), timedelta(seconds=2.5)),
        (Duration(seconds=-5, nanos=-5), timedelta(0)),
        (Duration(seconds=315_576_000_000), timedelta(hours=1)),
    ],
)
def test_delays_are_bounded(delay: Duration, expected: timedelta) -> None:
    assert translate(failure(RetryInfo(retry_delay=delay))).retry_after == expected


def test_no_delay() -> None:
    assert translate(failure(RetryInfo())).retry_after is None


def test_text_is_bounded_and_printable() -> None:
    error = translate(failure(ErrorInfo(reason="A\nB", domain="credbroker.dev"), message="x" * MAX_TEXT + "\x1b[2J"))
    assert error.message == "x" * MAX_TEXT + "…"
    assert error.reason == "A\\nB"


@pytest.mark.parametrize(
    "metadata", [None, Metadata(), Metadata(("other", "x")), Metadata(("grpc-status-details-bin", "x"))]
)
def test_no_details(metadata: Metadata | None) -> None:
    error = translate(AioRpcError(grpc.StatusCode.NOT_FOUND, None, metadata, details="m"))
    assert type(error) is credbroker.NotFound


@given(st.binary(max_size=200))
def test_details_that_are_none(noise: bytes) -> None:
    metadata = Metadata(("grpc-status-details-bin", noise))
    assert isinstance(translate(AioRpcError(grpc.StatusCode.NOT_FOUND, None, metadata, "m")), credbroker.Error)


@given(st.binary(max_size=200))
def test_a_detail_that_is_none(noise: bytes) -> None:
    status = Status(code=5, message="m")
    for name in ("ErrorInfo", "BadRequest", "RetryInfo"):
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=noise)
    metadata = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    assert isinstance(translate(AioRpcError(grpc.StatusCode.NOT_FOUND, None, metadata, "m")), credbroker.Error)
