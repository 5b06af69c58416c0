import json
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from credbroker.v1.scope_service_pb2 import CreateScopeRequest

from broker.cli.failures import Failure
from broker.cli.remote import connect, resolve
from broker.dev.pki import DevAuthority
from tests.contract.cli.conftest import Command
from tests.contract.cli.records import task
from tests.fakes.operators import FakeBroker


def test_a_refusal_is_one_line_with_reason_and_advice(broker: Command) -> None:
    result = broker("scopes", "show", "nothing", expect=1)
    assert result.stdout == ""
    assert result.stderr == (
        "error: there is no such scope (SCOPE_NOT_FOUND) - `broker scopes list` shows what there is\n"
    )


@pytest.mark.parametrize(
    ("token", "line"),
    [
        ("wrong", "error: no such caller (EVIDENCE_INVALID) - check that the token is for this broker:"),
        ("", "error: no such caller (EVIDENCE_MISSING) - set CREDBROKER_TOKEN_FILE, or CREDBROKER_CERT_FILE"),
    ],
)
def test_bad_evidence(token: str, line: str, broker: Command) -> None:
    broker.environ["CREDBROKER_TOKEN"] = token
    assert broker("tasks", "list", expect=1).stderr.startswith(line)


def test_what_the_broker_says_is_escaped(broker: Command, fake: FakeBroker) -> None:
    fake.message = "gone\x1b[2J\nerror: all is well"
    shown = broker("scopes", "show", "nothing", expect=1).stderr
    assert shown.startswith(r"error: gone\x1b[2J\nerror: all is well (SCOPE_NOT_FOUND)")
    assert shown.count("\n") == 1


def test_nothing_listens(broker: Command) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        broker.environ["CREDBROKER_ADDRESS"] = address = f"127.0.0.1:{closed.getsockname()[1]}"
        shown = broker("locks", expect=1).stderr
    assert shown == (
        f"error: cannot reach the broker at {address} (UNAVAILABLE)"
        " - check CREDBROKER_ADDRESS and that the broker runs\n"
    )


def test_another_authority(broker: Command, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(DevAuthority().certificate_pem)
    shown = broker("locks", "--ca-file", str(other), expect=1).stderr
    assert "is not trusted (UNAVAILABLE) - set CREDBROKER_CA_FILE" in shown


def test_something_that_speaks_no_tls(broker: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        broker.environ["CREDBROKER_ADDRESS"] = f"127.0.0.1:{server.getsockname()[1]}"
        with hanging_up(server):
            shown = broker("locks", expect=1).stderr
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1


@contextmanager
def hanging_up(server: socket.socket) -> Iterator[None]:
    """Accept connections and close them at once."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                server.accept()[0].close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tasks", "list", "--state", "gone"], "must be one of active, completed"),
        (["tasks", "list", "--since", "yesterday"], "must be a duration ago such as 2h"),
        (["tasks", "list", "--limit", "-1"], "--limit"),
        (["tasks", "list", "--output", "xml"], "xml"),
        (["lock", "agent", "spiffe://a/b"], "--reason"),
        (["lock", "everything", "x", "--reason", "y"], "everything"),
        (["tasks", "list", "--ca-file", "/nowhere.pem"], "/nowhere.pem cannot be read"),
        (["tasks", "list", "--token-env", "NOT_SET"], "NOT_SET is empty"),
    ],
)
def test_wrong_input_exits_with_2(words: list[str], told: str, broker: Command) -> None:
    shown = broker(*words, expect=2).stderr
    assert told in " ".join(shown.replace("│", " ").split())


def test_an_address_is_needed(broker: Command) -> None:
    broker.environ["CREDBROKER_ADDRESS"] = None
    assert "set CREDBROKER_ADDRESS or give --address host:port" in broker("locks", expect=2).stderr


def test_an_identifier_that_nothing_ends_in(broker: Command, fake: FakeBroker) -> None:
    fake.tasks = [task(1)]
    shown = broker("tasks", "show", "ffff", expect=1).stderr
    assert shown == "error: no task among the newest 2000 ends in 'ffff' - give the whole identifier\n"
    assert json.loads(broker("tasks", "list", "-o", "json").stdout)


@contextmanager
def empty_server(authority: DevAuthority, *, wants_certificate: bool) -> Iterator[str]:
    """A TLS server that knows no call."""
    certificate, key = authority.issue(addresses=["127.0.0.1"])
    roots = authority.certificate_pem if wants_certificate else None
    credentials = grpc.ssl_server_credentials([(key, certificate)], roots, wants_certificate)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("wants_certificate", "told"),
    [
        (True, "did not complete the TLS handshake (UNAVAILABLE) - check the port: one listener takes tokens,"),
        (False, "does not know this call (UNIMPLEMENTED) - check that the address is the broker's"),
    ],
)
def test_a_wrong_port(wants_certificate: bool, told: str, broker: Command, authority: DevAuthority) -> None:
    with empty_server(authority, wants_certificate=wants_certificate) as address:
        assert broker("locks", "--address", address, expect=1).stderr.startswith(f"error: {address} {told}")


def test_a_broker_that_does_not_answer(broker: Command, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.cli.remote.CALL_TIMEOUT_SECONDS", 0.3)
    fake.answering.clear()
    try:
        told = broker("scopes", "show", "any", expect=1).stderr
    finally:
        fake.answering.set()
    assert "did not answer in time (DEADLINE_EXCEEDED) - check the broker's health" in told


@pytest.mark.parametrize(
    ("document", "details"),
    [
        ("a: 1", ("apiVersion: ", "kind: ", "metadata: ", "spec: ", "a: ")),
        ("a: [", ()),
    ],
)
def test_every_wrong_field_is_told_unless_the_message_has_it(
    document: str, details: tuple[str, ...], broker: Command, fake: FakeBroker
) -> None:
    environ = {name: value for name, value in broker.environ.items() if value is not None}
    with connect(resolve({}, environ)) as remote, pytest.raises(Failure) as caught:
        remote.call(remote.scopes.CreateScope, CreateScopeRequest(document=document))
    assert caught.value.reason == "SCOPE_DOCUMENT_INVALID"
    assert len(caught.value.details) == len(details)
    for detail in details:
        assert any(line.startswith(detail) for line in caught.value.details), detail
