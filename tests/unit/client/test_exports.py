"""What the package offers: a change here is a change of its interface."""

import inspect
import re
import subprocess
import sys

import credbroker
from credbroker import _errors, aio

EXPORTS = [
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


def test_the_exports() -> None:
    assert credbroker.__all__ == EXPORTS
    assert aio.__all__ == ["AsyncClient", "AsyncCredential", "AsyncTask"]
    for name in EXPORTS:
        assert hasattr(credbroker, name)


def test_names_are_shown_as_they_are_imported() -> None:
    assert repr(credbroker.ScopeDenied) == "<class 'credbroker.ScopeDenied'>"
    assert credbroker.Client.__module__ == credbroker.Revocability.__module__ == "credbroker"
    assert aio.AsyncClient.__module__ == "credbroker.aio"


def test_everything_else_is_private() -> None:
    public = {
        name
        for name, value in vars(credbroker).items()
        if not name.startswith("_") and not (inspect.ismodule(value) and name in ("logging", "v1", "cli"))
    }
    assert public == set(EXPORTS)


def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
    return {
        name: [(part.name, part.kind, part.default) for part in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_offer_the_same() -> None:
    pairs = (
        (credbroker.Client, aio.AsyncClient),
        (credbroker.Task, aio.AsyncTask),
        (credbroker.Credential, aio.AsyncCredential),
    )
    for blocking, asynchronous in pairs:
        assert methods(blocking) == methods(asynchronous)
    assert (
        inspect.signature(credbroker.Client).parameters.keys() == inspect.signature(aio.AsyncClient).parameters.keys()
    )


def test_the_error_tree_is_the_one_in_the_documentation() -> None:
    documented = re.findall(r"^    ((?:[│ ]   )*)(?:[├└]── )(\w+)", _errors.__doc__ or "", re.MULTILINE)

    def tree(kind: type[credbroker.Error], depth: int = 0) -> list[tuple[int, str]]:
        found = []
        for below in kind.__subclasses__():
            found += [(depth, below.__name__), *tree(below, depth + 1)]
        return found

    assert [(len(indent) // 4, name) for indent, name in documented] == tree(credbroker.Error)
    assert {name for _, name in tree(credbroker.Error)} < set(EXPORTS)


def test_reasons_are_unique_and_documented() -> None:
    for reason, kind in _errors.BY_REASON.items():
        assert kind.default_reason == reason
        assert re.search(rf"{kind.__name__} +{reason}\b", _errors.__doc__ or "")


def test_importing_does_no_work() -> None:
    script = (
        "import logging, sys, threading, credbroker\n"
        "assert threading.active_count() == 1\n"
        "assert [type(item).__name__ for item in logging.getLogger('credbroker').handlers] == ['NullHandler']\n"
        "assert not logging.root.handlers\n"
        "assert not {name for name in sys.modules if name.split('.')[0] in ('broker', 'cryptography', 'pydantic')}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
