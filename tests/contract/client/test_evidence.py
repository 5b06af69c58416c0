"""Proving who one is, and trusting the broker."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import credbroker
import pytest
from credbroker.aio import AsyncClient
from cryptography import x509

from broker.dev.pki import DevAuthority
from tests.contract.client.conftest import MakeClient
from tests.fakes.broker import DEFAULT_TOKEN, FakeBroker, Hold, running


def replace_file(path: Path, content: bytes | str) -> None:
    """Replace a file as rotating programs do: at once."""
    new = path.with_suffix(".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, path)


def test_a_token_file_is_read_for_every_attempt(make_client: MakeClient, broker: FakeBroker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{DEFAULT_TOKEN}\n")
    broker.tokens.add("rotated")
    with make_client(token_file=file).task("p") as task:
        task.credential("vault")
        replace_file(file, "rotated")
        task.credential("vault")
    assert [seen.token for seen in broker.calls] == [DEFAULT_TOKEN, "rotated", "rotated"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "cannot be read"), ("", "1 to 16384"), ("two words", "without spaces"), ("snow☃", "does not hold a token")],
)
def test_a_token_file_without_a_token(
    make_client: MakeClient, broker: FakeBroker, tmp_path: Path, content: str | None, error: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(credbroker.Misconfigured, match=error) as caught:
        make_client(token_file=str(file)).task("p").start()
    assert str(file) in str(caught.value)
    assert broker.calls == []


@pytest.mark.parametrize("token", [None, 7, "", "line\nbreak", "sn☃w", "x" * 16385])
def test_a_token_that_cannot_be_sent(make_client: MakeClient, broker: FakeBroker, token: Any) -> None:
    with pytest.raises(credbroker.Misconfigured, match="token must be"):
        make_client(token=lambda: token).task("p").start()
    assert broker.calls == []


def test_an_exception_of_the_token_callable_comes_through(make_client: MakeClient, broker: FakeBroker) -> None:
    def token() -> str:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        make_client(token=token).task("p").start()


def test_an_asynchronous_token_callable_needs_the_asynchronous_client(broker: FakeBroker, ca_file: Path) -> None:
    async def token() -> str:
        return DEFAULT_TOKEN

    with (
        credbroker.Client(broker.address, token=token, ca_file=ca_file) as client,  # type: ignore[arg-type]  # the misuse
        pytest.raises(credbroker.Misconfigured, match="AsyncClient"),
    ):
        client.task("p").start()


@pytest.mark.parametrize("through", ["function", "lambda"])
async def test_an_asynchronous_token_callable(broker: FakeBroker, ca_file: Path, through: str) -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return DEFAULT_TOKEN

    given = token if through == "function" else lambda: token()
    async with AsyncClient(broker.address, token=given, ca_file=ca_file) as client, client.task("p") as task:
        await task.credential("vault")
    assert {seen.token for seen in broker.calls} == {DEFAULT_TOKEN}


async def test_a_blocking_token_callable_does_not_block_the_loop(broker: FakeBroker, ca_file: Path) -> None:
    release = threading.Event()

    def token() -> str:
        if not release.wait(10):
            raise TimeoutError
        return DEFAULT_TOKEN

    async with AsyncClient(broker.address, token=token, ca_file=ca_file) as client:
        starting = asyncio.create_task(client.task("p").start())
        await asyncio.sleep(0)
        release.set()
        await starting


def test_no_evidence_is_told_by_the_broker(make_client: MakeClient, broker: FakeBroker, tmp_path: Path) -> None:
    with pytest.raises(credbroker.EvidenceInvalid, match="issuer and audience"):
        make_client(token="another").task("p").start()


@pytest.fixture
def svid(authority: DevAuthority, tmp_path: Path) -> dict[str, Path]:
    return write_svid(authority, tmp_path, "spiffe://example.test/one")


def write_svid(authority: DevAuthority, folder: Path, spiffe_id: str) -> dict[str, Path]:
    certificate, key = authority.issue(spiffe_id=spiffe_id)
    files = {"certificate_file": folder / "svid.pem", "key_file": folder / "key.pem"}
    replace_file(files["certificate_file"], certificate)
    replace_file(files["key_file"], key)
    return files


def presented(broker: FakeBroker) -> list[str]:
    found = []
    for seen in broker.calls:
        assert seen.certificate is not None
        names = x509.load_pem_x509_certificate(seen.certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        found += names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return found


def test_mutual_tls_sends_a_certificate_and_no_token(
    make_client: MakeClient, broker: FakeBroker, svid: dict[str, Path]
) -> None:
    with make_client(broker.mutual_address, **svid).task("p") as task:
        task.credential("vault")
    assert {seen.token for seen in broker.calls} == {None}
    assert presented(broker) == ["spiffe://example.test/one"] * 2


def test_mutual_tls_at_the_bearer_listener_is_told(
    make_client: MakeClient, svid: dict[str, Path], broker: FakeBroker
) -> None:
    with pytest.raises(credbroker.EvidenceMissing, match="matching listener"):
        make_client(broker.address, **svid).task("p").start()


def test_a_rotated_certificate_is_used_from_the_next_call_on(
    make_client: MakeClient, broker: FakeBroker, svid: dict[str, Path], authority: DevAuthority, tmp_path: Path
) -> None:
    with make_client(broker.mutual_address, **svid).task("p") as task:
        task.credential("vault")
        write_svid(authority, tmp_path, "spiffe://example.test/two")
        task.credential("vault")
    assert [name.rpartition("/")[2] for name in presented(broker)] == ["one", "two", "two"]


def test_a_running_call_outlives_a_rotation(
    make_client: MakeClient, broker: FakeBroker, svid: dict[str, Path], authority: DevAuthority, tmp_path: Path
) -> None:
    task = make_client(broker.mutual_address, **svid).task("p").start()
    held = Hold()
    broker.script("IssueCredential", held)
    found: list[str] = []
    running = threading.Thread(target=lambda: found.append(task.credential("vault").token))
    running.start()
    assert held.arrived.wait(10)
    write_svid(authority, tmp_path, "spiffe://example.test/two")
    task.credential("vault")
    held.release.set()
    running.join(10)
    assert len(found) == 1
    task.complete()


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("half")])
def test_half_written_files_change_nothing(
    make_client: MakeClient,
    broker: FakeBroker,
    svid: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
) -> None:
    with make_client(broker.mutual_address, **svid).task("p") as task:
        task.credential("vault")
        spoil(svid["key_file"])
        task.credential("vault")
    assert "kept the TLS files" in caplog.text


def test_a_broker_that_is_not_trusted_gets_no_token(
    make_client: MakeClient, broker: FakeBroker, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(DevAuthority().certificate_pem)
    with pytest.raises(credbroker.Untrusted, match="ca_file="):
        make_client(ca_file=other).task("p").start()
    assert broker.calls == []


def test_a_certificate_for_another_host_is_not_trusted(make_client: MakeClient, authority: DevAuthority) -> None:
    with running(FakeBroker(), authority, host="127.0.0.2") as impostor:
        with pytest.raises(credbroker.Untrusted, match="names the host"):
            make_client(impostor.address).task("p").start()
        assert impostor.calls == []


@pytest.mark.parametrize("name", ["ca_file", "certificate_file", "key_file"])
@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe", b"x" * (1024 * 1024 + 1), None])
def test_files_that_are_no_certificates_are_told_at_once(
    make_client: MakeClient, svid: dict[str, Path], tmp_path: Path, name: str, content: bytes | None
) -> None:
    file = tmp_path / "odd.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(credbroker.Misconfigured, match=r"odd\.pem"):
        make_client(**{**svid, name: file})


def test_a_key_of_another_certificate_is_told_at_once(
    make_client: MakeClient, svid: dict[str, Path], authority: DevAuthority, tmp_path: Path
) -> None:
    _, other = authority.issue(spiffe_id="spiffe://example.test/two")
    svid["key_file"].write_bytes(other)
    with pytest.raises(credbroker.Misconfigured, match="certificate chain and its unencrypted key"):
        make_client(**svid)


def test_everything_from_the_environment(broker: FakeBroker, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDBROKER_ADDRESS", broker.address)
    monkeypatch.setenv("CREDBROKER_CA_FILE", str(ca_file))
    monkeypatch.setenv("CREDBROKER_TOKEN", DEFAULT_TOKEN)
    with credbroker.Client() as client, client.task("p") as task:
        assert task.credential("vault").token == "secret-1"


def test_a_broker_that_is_not_there(make_client: MakeClient) -> None:
    began = time.monotonic()
    with (
        pytest.raises(credbroker.Unreachable, match="refused"),
        make_client("127.0.0.1:1", total_timeout=0.5).task("p") as task,
    ):
        task.credential("vault")
    assert time.monotonic() - began < 5, "what was never sent needs no settling"


def test_a_name_that_does_not_resolve(make_client: MakeClient) -> None:
    with pytest.raises(credbroker.Unreachable, match="check the address"):
        make_client("broker.invalid:8443", total_timeout=0.3).task("p").start()
