"""Certificates that cannot be used keep the server from starting, and say why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker import config
from broker.dev.pki import DevAuthority
from broker.errors import ConfigError
from broker.serve.tls import MAX_PEM_BYTES, Certificates


@pytest.fixture
def authority() -> DevAuthority:
    return DevAuthority()


@pytest.fixture
def files(tmp_path: Path, authority: DevAuthority) -> config.Tls:
    certificate, key = authority.issue(addresses=["127.0.0.1"])
    files = config.Tls(certificate=tmp_path / "tls.crt", private_key=tmp_path / "tls.key")
    files.certificate.write_bytes(certificate)
    files.private_key.write_bytes(key)
    return files


def test_good_files_are_taken(files: config.Tls, authority: DevAuthority) -> None:
    assert Certificates(files).credentials()
    assert Certificates(files, lambda: authority.certificate_pem).credentials()


def remove_certificate(files: config.Tls) -> None:
    files.certificate.unlink()


def remove_key(files: config.Tls) -> None:
    files.private_key.unlink()


def garble_certificate(files: config.Tls) -> None:
    files.certificate.write_bytes(files.certificate.read_bytes()[:200])


def empty_certificate(files: config.Tls) -> None:
    files.certificate.write_bytes(b"")


def garble_key(files: config.Tls) -> None:
    files.private_key.write_bytes(b"not a key")


def exchange_key(files: config.Tls) -> None:
    files.private_key.write_bytes(DevAuthority().key_pem)


def inflate_certificate(files: config.Tls) -> None:
    files.certificate.write_bytes(b"\n" * (MAX_PEM_BYTES + 1))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (remove_certificate, r"tls\.crt: cannot be read"),
        (remove_key, r"tls\.key: cannot be read"),
        (garble_certificate, r"tls\.crt: must be certificates"),
        (empty_certificate, r"tls\.crt: must be certificates"),
        (garble_key, r"tls\.key: must be an unencrypted private key"),
        (exchange_key, r"tls\.key: is not the key of .*tls\.crt"),
        (inflate_certificate, r"tls\.crt: must be at most"),
    ],
)
def test_bad_files_are_named(files: config.Tls, spoil: Callable[[config.Tls], None], expected: str) -> None:
    spoil(files)
    with pytest.raises(ConfigError, match=expected):
        Certificates(files).credentials()


@pytest.mark.parametrize("bundle", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_mutual_listener_needs_authorities(files: config.Tls, bundle: bytes) -> None:
    with pytest.raises(ConfigError, match="x509_svid"):
        Certificates(files, lambda: bundle).credentials()
