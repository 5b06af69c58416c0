"""Every error of the tree has a code and a reason, and never tells its detail."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker import errors
from broker.errors import BrokerError, FieldViolation
from broker.serve.errors import CODES, DOMAIN, code_of, status_of

Code = grpc.StatusCode
Kind = TypeVar("Kind", bound=Message)

# Spelled out, so that a moved class or a changed code shows as a changed contract.
EXPECTED = {
    "BrokerError": (Code.INTERNAL, "INTERNAL"),
    "Unauthenticated": (Code.UNAUTHENTICATED, "UNAUTHENTICATED"),
    "EvidenceMissing": (Code.UNAUTHENTICATED, "EVIDENCE_MISSING"),
    "EvidenceInvalid": (Code.UNAUTHENTICATED, "EVIDENCE_INVALID"),
    "EvidenceExpired": (Code.UNAUTHENTICATED, "EVIDENCE_EXPIRED"),
    "EvidenceReplayed": (Code.UNAUTHENTICATED, "EVIDENCE_REPLAYED"),
    "PermissionDenied": (Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    "RoleRequired": (Code.PERMISSION_DENIED, "ROLE_REQUIRED"),
    "ScopeDenied": (Code.PERMISSION_DENIED, "SCOPE_DENIED"),
    "ScopeNotDeclared": (Code.PERMISSION_DENIED, "SCOPE_NOT_DECLARED"),
    "Locked": (Code.PERMISSION_DENIED, "LOCKED"),
    "InvalidArgument": (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    "ParametersInvalid": (Code.INVALID_ARGUMENT, "PARAMETERS_INVALID"),
    "TtlExceeded": (Code.INVALID_ARGUMENT, "TTL_EXCEEDED"),
    "ScopeDocumentInvalid": (Code.INVALID_ARGUMENT, "SCOPE_DOCUMENT_INVALID"),
    "FilterInvalid": (Code.INVALID_ARGUMENT, "FILTER_INVALID"),
    "PageTokenInvalid": (Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"),
    "NotFound": (Code.NOT_FOUND, "NOT_FOUND"),
    "TaskNotFound": (Code.NOT_FOUND, "TASK_NOT_FOUND"),
    "IssuanceNotFound": (Code.NOT_FOUND, "ISSUANCE_NOT_FOUND"),
    "ScopeNotFound": (Code.NOT_FOUND, "SCOPE_NOT_FOUND"),
    "LockNotFound": (Code.NOT_FOUND, "LOCK_NOT_FOUND"),
    "FailedPrecondition": (Code.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
    "TaskEnded": (Code.FAILED_PRECONDITION, "TASK_ENDED"),
    "IssuanceEnded": (Code.FAILED_PRECONDITION, "ISSUANCE_ENDED"),
    "NotRenewable": (Code.FAILED_PRECONDITION, "NOT_RENEWABLE"),
    "NotRevocable": (Code.FAILED_PRECONDITION, "NOT_REVOCABLE"),
    "AlreadyExists": (Code.ALREADY_EXISTS, "ALREADY_EXISTS"),
    "RequestIdReused": (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    "ScopeExists": (Code.ALREADY_EXISTS, "SCOPE_EXISTS"),
    "Aborted": (Code.ABORTED, "ABORTED"),
    "EtagMismatch": (Code.ABORTED, "ETAG_MISMATCH"),
    "ResourceExhausted": (Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    "LimitReached": (Code.RESOURCE_EXHAUSTED, "LIMIT_REACHED"),
    "Overloaded": (Code.RESOURCE_EXHAUSTED, "OVERLOADED"),
    "Unavailable": (Code.UNAVAILABLE, "UNAVAILABLE"),
    "VaultUnavailable": (Code.UNAVAILABLE, "VAULT_UNAVAILABLE"),
    "VaultAway": (Code.UNAVAILABLE, "VAULT_UNAVAILABLE"),
    "StoreUnavailable": (Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
    "ClockUncertain": (Code.UNAVAILABLE, "CLOCK_UNCERTAIN"),
    "KeysUnavailable": (Code.UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE"),
    "MintFailed": (Code.FAILED_PRECONDITION, "MINT_FAILED"),
    "DeadlineExceeded": (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    "ConfigError": (Code.INTERNAL, "CONFIG_INVALID"),
}


def tree(root: type[BrokerError] = BrokerError) -> Iterator[type[BrokerError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def details(status: grpc.Status, kind: type[Kind]) -> list[Kind]:
    ((key, raw),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    rich = Status.FromString(raw)
    assert (rich.code, rich.message) == (status.code.value[0], status.details)
    found = []
    for packed in rich.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_code_and_reason_of_every_error(kind: type[BrokerError]) -> None:
    error = kind("the detail")
    code, reason = EXPECTED[kind.__name__]
    status = status_of(error)
    assert code_of(error) is status.code is code
    (info,) = details(status, ErrorInfo)
    assert (info.reason, info.domain) == (reason, DOMAIN)
    assert status.details == kind.message
    assert "the detail" not in repr(status)


def test_every_branch_of_the_tree_has_its_own_code() -> None:
    branches = {child for child in BrokerError.__subclasses__() if child.__module__ == errors.__name__}
    assert branches - CODES.keys() == set()


def test_expectations_name_no_error_that_is_gone() -> None:
    assert EXPECTED.keys() == {kind.__name__ for kind in tree()}


def test_metadata_retry_and_violations_are_sent() -> None:
    error = errors.LimitReached(
        "secret detail",
        message="only 3 at once",
        metadata={"limit": "livePerTask"},
        retry_after=timedelta(seconds=1.5),
        violations=(FieldViolation("a.b", "must be c"), FieldViolation("d", "must be e")),
    )
    status = status_of(error)
    assert status.details == "only 3 at once"
    assert details(status, ErrorInfo)[0].metadata == {"limit": "livePerTask"}
    assert details(status, RetryInfo)[0].retry_delay.ToTimedelta() == timedelta(seconds=1.5)
    violations = details(status, BadRequest)[0].field_violations
    assert [(item.field, item.description) for item in violations] == [("a.b", "must be c"), ("d", "must be e")]


def test_a_thousand_violations_stay_within_what_clients_accept() -> None:
    many = tuple(FieldViolation(f"parameters.{'k' * 300}[{index}]", "ü" * 1000) for index in range(1000))
    status = status_of(errors.InvalidArgument(message="%" * 10_000, violations=many))
    sent = details(status, BadRequest)[0].field_violations
    assert 1 <= len(sent) < 10
    assert sent[0].description.startswith("ü")
    assert len(status.trailing_metadata[0][1]) * 4 // 3 + 3 * len(status.details) < 8 * 1024


def test_text_that_protobuf_refuses_is_replaced() -> None:
    status = status_of(errors.InvalidArgument(message="lone \ud800", violations=(FieldViolation("\udfff", "x"),)))
    assert status.details == "lone ?"
    assert details(status, BadRequest)[0].field_violations[0].field == "?"
