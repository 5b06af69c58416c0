from pathlib import Path

import pytest

from broker.cli.failures import Failure
from broker.cli.remote import resolve

HERE = {"CREDBROKER_ADDRESS": "127.0.0.1:1"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    return file


def token_of(options: dict[str, str], environ: dict[str, str]) -> str | None:
    token = resolve(options, HERE | environ).token
    return token.reveal() if token else None


def test_everything_from_the_environment(token_file: Path) -> None:
    connection = resolve({}, HERE | {"CREDBROKER_CA_FILE": "ca.pem", "CREDBROKER_TOKEN_FILE": str(token_file)})
    assert connection.address == "127.0.0.1:1"
    assert connection.ca_file == Path("ca.pem")
    assert connection.token is not None
    assert connection.token.reveal() == "from-file"
    assert "from-file" not in repr(connection)


def test_options_win_over_the_environment(token_file: Path) -> None:
    environ = {"CREDBROKER_TOKEN": "from-environment", "CREDBROKER_CA_FILE": "ca.pem", "MINE": "from-mine"}
    assert token_of({}, environ) == "from-environment"
    assert token_of({"token_file": str(token_file)}, environ) == "from-file"
    assert token_of({"token_env": "MINE"}, environ) == "from-mine"
    assert resolve({"address": "b:2", "ca_file": "other.pem"}, HERE | environ).address == "b:2"
    assert resolve({"ca_file": "other.pem"}, HERE | environ).ca_file == Path("other.pem")


def test_a_client_certificate_is_used_instead_of_the_environments_token() -> None:
    connection = resolve({"cert_file": "c.pem", "key_file": "k.pem"}, HERE | {"CREDBROKER_TOKEN": "t"})
    assert connection.token is None
    assert (connection.cert_file, connection.key_file) == (Path("c.pem"), Path("k.pem"))


def test_a_client_certificate_from_the_environment() -> None:
    connection = resolve({}, HERE | {"CREDBROKER_CERT_FILE": "c.pem", "CREDBROKER_KEY_FILE": "k.pem"})
    assert (connection.cert_file, connection.key_file) == (Path("c.pem"), Path("k.pem"))


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        ({"cert_file": "c.pem"}, {}, "--cert-file is set alone"),
        ({"key_file": "k.pem"}, {}, "--key-file is set alone"),
        ({"token_env": "MINE"}, {}, "the environment variable MINE is empty"),
        ({"token_env": "MINE", "cert_file": "c", "key_file": "k"}, {"MINE": "t"}, "more than one kind of evidence"),
        ({"token_env": "MINE", "token_file": "f"}, {"MINE": "t"}, "more than one kind of evidence"),
        ({}, {"CREDBROKER_CERT_FILE": "c.pem"}, "CREDBROKER_CERT_FILE is set alone"),
        ({}, {"CREDBROKER_TOKEN": "t", "CREDBROKER_TOKEN_FILE": "f"}, "more than one kind of evidence"),
        ({}, {"CREDBROKER_TOKEN": "two words"}, "CREDBROKER_TOKEN holds no token"),
        ({}, {"CREDBROKER_TOKEN": "a\r\nb"}, "CREDBROKER_TOKEN holds no token"),
        ({"token_file": "/nowhere/at/all"}, {}, "/nowhere/at/all cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(Failure, match=message) as caught:
        resolve(options, HERE | environ)
    assert caught.value.exit_code == 2


def test_an_address_is_needed() -> None:
    with pytest.raises(Failure, match="no address of the broker"):
        resolve({}, {})


def test_no_evidence_is_left_to_the_broker_to_refuse() -> None:
    assert resolve({}, HERE).token is None


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"one\ntwo", b"x" * (1024 * 1024 + 1)])
def test_a_file_that_holds_no_token(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(Failure, match=r"holds no token|is larger than"):
        resolve({"token_file": str(file)}, HERE)
