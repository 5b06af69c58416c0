"""Arguments and environment."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import credbroker
import pytest
from credbroker._evidence import Bearer, Certificate, TokenCall, TokenFile
from credbroker._retry import Policy
from credbroker._settings import Arguments, Settings, resolve, seconds

ADDRESS = "broker.example:8443"


def settings(environ: dict[str, str] | None = None, **given: Any) -> Settings:
    names = ("address", "token", "token_file", "certificate_file", "key_file", "ca_file")
    arguments = {**dict.fromkeys(names), "timeout": 10.0, "total_timeout": 30.0, **given}
    return resolve(Arguments(**arguments), environ or {})


def test_arguments() -> None:
    found = settings(address=ADDRESS, token_file="t", ca_file=Path("ca"), timeout=timedelta(seconds=3))
    assert found == Settings(ADDRESS, TokenFile(Path("t")), Path("ca"), Policy(3.0, 30.0))


def test_environment() -> None:
    environ = {
        "CREDBROKER_ADDRESS": ADDRESS,
        "CREDBROKER_CA_FILE": "ca",
        "CREDBROKER_CERT_FILE": "c",
        "CREDBROKER_KEY_FILE": "k",
        "CREDBROKER_TOKEN": "",
    }
    assert settings(environ) == Settings(ADDRESS, Certificate(Path("c"), Path("k")), Path("ca"), Policy())


def test_arguments_win_over_the_environment() -> None:
    environ = {"CREDBROKER_ADDRESS": "other:1", "CREDBROKER_CA_FILE": "other", "CREDBROKER_TOKEN_FILE": "other"}
    found = settings(environ, address=ADDRESS, token="t", ca_file="ca")
    assert isinstance(found.evidence, Bearer)
    assert (found.address, found.ca_file) == (ADDRESS, Path("ca"))
    assert isinstance(settings(environ, token=lambda: "t").evidence, TokenCall)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:65535", "a_b.c-d:8443"])
def test_addresses(address: str) -> None:
    assert settings(address=address, token="t").address == address


@pytest.mark.parametrize(
    "address", ["broker", "https://broker:1", "broker:0", "broker:65536", "broker:1/x", ":1", "b r:1", "[::1", "::1:x"]
)
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(credbroker.Misconfigured, match="host:port, such as"):
        settings(address=address, token="t")


def test_no_address() -> None:
    with pytest.raises(credbroker.Misconfigured, match="CREDBROKER_ADDRESS"):
        settings(token="t")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "no evidence of identity: give one of token="),
        ({"token": "t", "token_file": "f"}, "more than one kind"),
        ({"token": "t", "certificate_file": "c", "key_file": "k"}, "more than one kind"),
        ({"token_file": "f", "key_file": "k"}, "more than one kind"),
        ({"certificate_file": "c"}, "certificate_file= and key_file= together"),
        ({"key_file": "k"}, "certificate_file= and key_file= together"),
        ({"token": ""}, "the token must be"),
    ],
)
def test_evidence_must_be_one_whole_thing(given: dict[str, str], error: str) -> None:
    with pytest.raises(credbroker.Misconfigured, match=error):
        settings({}, address=ADDRESS, **given)


def test_evidence_of_the_environment_must_be_one_thing() -> None:
    environ = {"CREDBROKER_TOKEN": "t", "CREDBROKER_TOKEN_FILE": "f"}
    with pytest.raises(credbroker.Misconfigured, match="more than one kind"):
        settings(environ, address=ADDRESS)


@pytest.mark.parametrize("value", [1, 1.0, timedelta(seconds=1)])
def test_seconds(value: Any) -> None:
    assert seconds(value, "x") == 1.0


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("5m", TypeError),
        (True, TypeError),
        (None, TypeError),
        (0, ValueError),
        (-1, ValueError),
        (float("inf"), ValueError),
        (float("nan"), ValueError),
        (timedelta(0), ValueError),
    ],
)
def test_what_is_no_duration(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="x must be"):
        seconds(value, "x")
