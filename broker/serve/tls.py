"""Certificates of the listeners, read again while the server runs."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from broker import config
from broker.errors import ConfigError

MAX_PEM_BYTES: Final = 1024 * 1024

_FileState: TypeAlias = tuple[int, int, int] | None
_State: TypeAlias = tuple[_FileState, _FileState, bytes | None]

log = structlog.get_logger(__name__)


class Certificates:
    """A listener's certificate and key, and the authorities of its clients where it wants to know them.

    gRPC asks for them at every handshake, on threads of its own. What has
    become unusable leaves what was loaded before in force, and the log says so
    once for each change.

    Args:
        files: Where certificate chain and private key are.
        bundle: Returns the authorities of client certificates, PEM; None for a
            listener that asks for no client certificate.
    """

    def __init__(self, files: config.Tls, bundle: Callable[[], bytes] | None = None) -> None:
        self._files = files
        self._bundle = bundle
        self._lock = threading.Lock()
        self._seen: _State | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files and the bundle.

        Raises:
            ConfigError: when they are unusable to begin with.
        """
        self._seen = self._state()
        return grpc.dynamic_ssl_server_credentials(
            self._load(self._seen),
            self._changed,  # type: ignore[arg-type]  # None stands for no change, which the stubs leave out
            require_client_authentication=self._bundle is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new since the last handshake; None when nothing is, or nothing usable."""
        with self._lock:
            try:
                state = self._state()
                if state == self._seen:
                    return None
                # Remembered before it is judged: an unusable state is read once.
                self._seen = state
                loaded = self._load(state)
            except Exception as error:
                log.error("new TLS files are unusable, the earlier ones stay in force", exc_info=error)
                return None
            log.info("TLS files were loaded again", certificate=str(self._files.certificate))
            return loaded

    def _state(self) -> _State:
        bundle = self._bundle() if self._bundle is not None else None
        return _file_state(self._files.certificate), _file_state(self._files.private_key), bundle

    def _load(self, state: _State) -> grpc.ServerCertificateConfiguration:
        chain, key = _read(self._files.certificate), _read(self._files.private_key)
        _check_pair(chain, key, self._files)
        bundle = state[2]
        if bundle is not None:
            _check_bundle(bundle)
        return grpc.ssl_server_certificate_configuration([(key, chain)], bundle)


def _file_state(file: Path) -> _FileState:
    """Return what changes when a file is written or replaced; None when it is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_PEM_BYTES:
        raise ConfigError(f"{file}: must be at most {MAX_PEM_BYTES} bytes")
    return content


def _check_pair(chain: bytes, key: bytes, files: config.Tls) -> None:
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ConfigError(f"{files.certificate}: must be certificates in PEM form") from None
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{files.private_key}: must be an unencrypted private key in PEM form") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise ConfigError(f"{files.private_key}: is not the key of {files.certificate}")


def _check_bundle(bundle: bytes) -> None:
    try:
        x509.load_pem_x509_certificates(bundle)
    except ValueError:
        raise ConfigError("listen.mutual: needs an x509_svid attestor with at least one trusted authority") from None
