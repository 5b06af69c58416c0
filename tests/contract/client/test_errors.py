"""What the broker refuses arrives as the library's own error, whatever the reason."""

import pickle
from datetime import timedelta
from typing import Any

import credbroker
import grpc
import pytest

from broker import errors as server
from broker.errors import BrokerError, FieldViolation
from tests.fakes.broker import Abort, FakeBroker, Refuse

# What the services of agents answer with, and what the client makes of it.
EXPECTED: dict[type[BrokerError], type[credbroker.Error]] = {
    server.EvidenceMissing: credbroker.EvidenceMissing,
    server.EvidenceInvalid: credbroker.EvidenceInvalid,
    server.EvidenceExpired: credbroker.EvidenceExpired,
    server.EvidenceReplayed: credbroker.EvidenceReplayed,
    server.RoleRequired: credbroker.RoleRequired,
    server.ScopeDenied: credbroker.ScopeDenied,
    server.ScopeNotDeclared: credbroker.ScopeNotDeclared,
    server.Locked: credbroker.Locked,
    server.InvalidArgument: credbroker.InvalidRequest,
    server.ParametersInvalid: credbroker.ParametersInvalid,
    server.TtlExceeded: credbroker.TtlExceeded,
    server.TaskNotFound: credbroker.TaskNotFound,
    server.IssuanceNotFound: credbroker.CredentialNotFound,
    server.TaskEnded: credbroker.TaskEnded,
    server.IssuanceEnded: credbroker.CredentialEnded,
    server.NotRenewable: credbroker.NotRenewable,
    server.NotRevocable: credbroker.NotRevocable,
    server.RequestIdReused: credbroker.RequestIdReused,
    server.LimitReached: credbroker.LimitReached,
    server.Overloaded: credbroker.Overloaded,
    server.VaultUnavailable: credbroker.VaultUnavailable,
    server.VaultAway: credbroker.VaultUnavailable,
    server.StoreUnavailable: credbroker.StoreUnavailable,
    server.ClockUncertain: credbroker.ClockUncertain,
    server.KeysUnavailable: credbroker.KeysUnavailable,
    server.DeadlineExceeded: credbroker.TimedOut,
    server.MintFailed: credbroker.MintFailed,
    # Never meant for agents: the gRPC code decides.
    server.ScopeNotFound: credbroker.NotFound,
    server.LockNotFound: credbroker.NotFound,
    server.ScopeDocumentInvalid: credbroker.InvalidRequest,
    server.FilterInvalid: credbroker.InvalidRequest,
    server.PageTokenInvalid: credbroker.InvalidRequest,
    server.ScopeExists: credbroker.AlreadyExists,
    server.EtagMismatch: credbroker.BrokerFailed,
    server.ConfigError: credbroker.BrokerFailed,
}


def leaves(base: type[BrokerError]) -> set[type[BrokerError]]:
    below = [kind for kind in base.__subclasses__() if kind.__module__ == server.__name__]
    return set().union(*map(leaves, below)) if below else {base}


def test_no_error_of_the_broker_is_forgotten() -> None:
    assert leaves(BrokerError) | {server.InvalidArgument, server.VaultUnavailable} == EXPECTED.keys()


@pytest.mark.parametrize(("sent", "expected"), EXPECTED.items(), ids=[kind.__name__ for kind in EXPECTED])
def test_each_reason(
    client: Any, broker: FakeBroker, sent: type[BrokerError], expected: type[credbroker.Error]
) -> None:
    task = client.task("p").start()
    broker.script("CompleteTask", *[Refuse(sent(retry_after=timedelta(seconds=40)))] * 20)
    with pytest.raises(credbroker.Error) as caught:
        task.complete()
    error = caught.value
    assert type(error) is expected
    assert error.reason == sent.reason
    assert error.message == sent.message
    assert str(error).startswith(f"{sent.message} [{sent.reason}]")
    assert error.retry_after == timedelta(seconds=40)
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, credbroker.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, credbroker.PermissionDenied),
        (grpc.StatusCode.INVALID_ARGUMENT, credbroker.InvalidRequest),
        (grpc.StatusCode.OUT_OF_RANGE, credbroker.InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, credbroker.NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, credbroker.FailedPrecondition),
        (grpc.StatusCode.ALREADY_EXISTS, credbroker.AlreadyExists),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, credbroker.LimitReached),
        (grpc.StatusCode.UNIMPLEMENTED, credbroker.BrokerFailed),
        (grpc.StatusCode.UNKNOWN, credbroker.BrokerFailed),
        (grpc.StatusCode.DATA_LOSS, credbroker.BrokerFailed),
    ],
)
def test_a_bare_status(
    client: Any, broker: FakeBroker, code: grpc.StatusCode, expected: type[credbroker.Error]
) -> None:
    broker.script("StartTask", Abort(code, "a\x1b[31mb\nc"))
    with pytest.raises(credbroker.Error) as caught:
        client.task("p").start()
    assert type(caught.value) is expected
    assert caught.value.reason == ""
    assert caught.value.message == "a\\x1b[31mb\\nc"


def test_violations_say_where(client: Any, broker: FakeBroker) -> None:
    wrong = (FieldViolation("parameters.role", "must be ro"), FieldViolation("ttl", "too long"))
    broker.script("IssueCredential", Refuse(server.ParametersInvalid(violations=wrong, metadata={"limit": "3"})))
    with pytest.raises(credbroker.ParametersInvalid) as caught:
        client.task("p").credential("db")
    assert caught.value.violations == tuple(credbroker.FieldViolation(item.field, item.description) for item in wrong)
    assert "parameters.role: must be ro; ttl: too long [PARAMETERS_INVALID]" in str(caught.value)
    assert caught.value.metadata == {"limit": "3"}


def test_errors_can_cross_processes() -> None:
    error = credbroker.TtlExceeded("m", violations=(credbroker.FieldViolation("a", "b"),), metadata={"c": "d"})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.metadata) == (credbroker.TtlExceeded, str(error), {"c": "d"})
