"""A canary in every place where a secret travels, looked for in every place where it must not come out."""

import copy
import io
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import credbroker
import grpc
import pytest
from credbroker.v1 import credential_service_pb2
from google.protobuf.descriptor import Descriptor

from tests.contract.client.conftest import MakeClient, TravelClock
from tests.fakes.broker import Abort, FakeBroker, Lose

CANARY = "canary-7f3a91"
TOKEN = f"{CANARY}-token"


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """Everything that is logged, at every level, with tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    caplog.set_level(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


@pytest.fixture
def canary_client(make_client: MakeClient, broker: FakeBroker) -> Any:
    broker.tokens = {TOKEN}
    broker.secrets = (f"{CANARY}-{number}" for number in range(100))
    return make_client(token=TOKEN)


def shown(thing: object) -> str:
    return f"{thing!r} {thing!s} {thing} {vars(thing) if hasattr(thing, '__dict__') else ''}"


def test_nothing_shows_a_secret(
    canary_client: Any,
    broker: FakeBroker,
    travel: TravelClock,
    output: io.StringIO,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broker.scopes["db"].data = {"username": f"{CANARY}-user", "nested": {"x": [f"{CANARY}-deep"]}}
    errors: list[BaseException] = []
    broker.script("IssueCredential", Lose(), Abort(grpc.StatusCode.UNAVAILABLE))
    with canary_client.task("p") as task:
        held = [task.credential("vault"), task.credential("db")]
        assert held[0].token.startswith(CANARY)
        assert held[1]["nested"] == {"x": [f"{CANARY}-deep"]}
        for text in map(shown, [*held, task, canary_client]):
            assert CANARY not in text
        travel.advance(seconds=301)
        reads: list[Callable[[], object]] = [lambda: held[0].token, lambda: held[1]["nope"], lambda: held[0].renew()]
        for failing in reads:
            with pytest.raises((credbroker.Error, KeyError)) as caught:
                failing()
            errors.append(caught.value)
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL))
        with pytest.raises(credbroker.BrokerFailed) as failed:
            held[0].fresh()
        errors.append(failed.value)
    for error in errors:
        assert CANARY not in "".join(traceback.format_exception(error))
        assert CANARY not in shown(error)
        assert CANARY not in repr(chain(error))
    written = capfd.readouterr()
    assert CANARY not in output.getvalue() + written.out + written.err
    assert output.getvalue()


def chain(error: BaseException | None) -> list[object]:
    """Return everything that hangs on an exception: attributes, cause and context."""
    found: list[object] = []
    while error is not None:
        found += [error.args, vars(error)]
        error = error.__cause__ or error.__context__
    return found


def test_no_frame_of_a_failure_keeps_the_token(canary_client: Any, broker: FakeBroker) -> None:
    """Error reporters show the local variables of each frame."""
    broker.script("StartTask", Abort(grpc.StatusCode.INTERNAL))
    with pytest.raises(credbroker.BrokerFailed) as caught:
        canary_client.task("p").start()
    library = [
        frame
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(("credbroker", "grpc"))
    ]
    assert library
    for frame in library:
        assert CANARY not in repr(frame.f_locals), frame.f_code.co_qualname


@pytest.mark.parametrize("secret", ["not a token ☃", f"{CANARY} with spaces"])
def test_a_token_that_cannot_be_sent_is_not_shown(make_client: MakeClient, secret: str) -> None:
    with pytest.raises(credbroker.Misconfigured) as caught:
        make_client(token=secret)
    assert secret not in shown(caught.value)
    assert secret not in repr(chain(caught.value))


def test_nothing_that_holds_a_secret_is_pickled_or_copied(make_client: MakeClient) -> None:
    client = make_client()
    task = client.task("p")
    credential = task.credential("vault")
    for thing in (client, task, credential):
        inner = getattr(thing, "_inner", thing)
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                leak(inner)
    inner_client: Any = getattr(client, "_inner", client)
    inner_credential: Any = getattr(credential, "_inner", credential)
    for part in (inner_client._io._evidence, inner_credential._issued.secret):
        assert "***" in repr(part)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(part)
    task.complete()


def test_a_credential_is_no_mapping_to_those_who_unfold_them(client: Any) -> None:
    with client.task("p") as task:
        credential = task.credential("db")
        inner = getattr(credential, "_inner", credential)
        assert not isinstance(inner, Mapping)
        assert {**inner} == dict(credential)


def redacted(descriptor: Descriptor, path: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.GetOptions().debug_redact:
            yield f"{path}{field.name}"
        elif field.message_type is not None and field.message_type.full_name.startswith("credbroker"):
            yield from redacted(field.message_type, f"{path}{field.name}.")


def test_every_field_that_the_contract_redacts_is_tested_here() -> None:
    answer = credential_service_pb2.IssueCredentialResponse.DESCRIPTOR
    assert sorted(redacted(answer)) == ["credential.leased.data", "credential.vault_token.token"]
