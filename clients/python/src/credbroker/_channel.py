"""Channels to the broker: always TLS, replaced when the files they were made from change."""

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import grpc

from credbroker._errors import Misconfigured
from credbroker._evidence import Certificate, read_file
from credbroker._settings import Settings

C = TypeVar("C")

Options: TypeAlias = tuple[tuple[str, int], ...]
Connect: TypeAlias = Callable[[str, grpc.ChannelCredentials, Options], C]

_log = logging.getLogger("credbroker")

OPTIONS: Options = (
    # Retries are this library's: DNS must not bring in a policy of its own.
    ("grpc.service_config_disable_resolution", 1),
    # A broker that comes back is found within the time that retries last.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    # Gives the connection up when sent data stays unacknowledged, as after a
    # silent loss in the network, long before the operating system would.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


@dataclass(frozen=True, slots=True, repr=False)
class Tls:
    """Trusted roots (None for gRPC's own list), and key and certificate chain for mutual TLS; PEM."""

    roots: bytes | None
    key: bytes | None
    chain: bytes | None


def load_tls(settings: Settings) -> Tls:
    """Read and check the PEM files.

    Raises:
        Misconfigured: with the file and what is wrong with it.
    """
    roots = None if settings.ca_file is None else read_file(settings.ca_file)
    if roots is not None:
        _check_roots(settings.ca_file, roots)
    if not isinstance(settings.evidence, Certificate):
        return Tls(roots, None, None)
    _check_pair(settings.evidence)
    return Tls(roots, read_file(settings.evidence.key), read_file(settings.evidence.certificate))


@dataclass(slots=True, eq=False)
class Held(Generic[C]):
    """A channel with the number of calls that use it."""

    channel: C
    users: int = 0
    retired: bool = False


class Channels(Generic[C]):
    """The channel in use, and those that the last calls on them keep alive."""

    def __init__(self, settings: Settings, connect: Connect[C]) -> None:
        self._settings = settings
        self._connect = connect
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._tls = load_tls(settings)
        self._current: Held[C] | None = None

    def acquire(self) -> tuple[Held[C], C | None]:
        """Return the channel for a call, and an older one that has to be closed now."""
        with self._lock:
            unused = self._retire() if self._changed() else None
            if self._current is None:
                tls = self._tls
                credentials = grpc.ssl_channel_credentials(tls.roots, tls.key, tls.chain)
                self._current = Held(self._connect(self._settings.address, credentials, OPTIONS))
            self._current.users += 1
            return self._current, unused

    def release(self, held: Held[C]) -> C | None:
        """Say that a call is over; return the channel when it has to be closed now."""
        with self._lock:
            held.users -= 1
            return held.channel if held.retired and held.users == 0 else None

    def close(self) -> C | None:
        """Give up the channel in use and return it to be closed, whoever uses it."""
        with self._lock:
            current, self._current = self._current, None
            return None if current is None else current.channel

    def _retire(self) -> C | None:
        current, self._current = self._current, None
        if current is None:
            return None
        current.retired = True
        return current.channel if current.users == 0 else None

    def _changed(self) -> bool:
        signature = self._signature()
        if signature == self._seen:
            return False
        try:
            self._tls = load_tls(self._settings)
        except Misconfigured as error:
            # The files are being written: what was read before is good until they are whole.
            _log.warning("kept the TLS files read before: %s", error)
            return False
        self._seen = signature
        return True

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        evidence = self._settings.evidence
        files = [self._settings.ca_file]
        if isinstance(evidence, Certificate):
            files += [evidence.certificate, evidence.key]
        return tuple(_stat(file) for file in files if file is not None)


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _check_roots(file: Path | None, pem: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise Misconfigured(f"{file}: holds no PEM certificates") from None


def _check_pair(evidence: Certificate) -> None:
    for file in (evidence.certificate, evidence.key):
        read_file(file)
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(evidence.certificate, evidence.key, password="")
    except (ssl.SSLError, OSError, ValueError):
        message = f"{evidence.certificate} and {evidence.key}: are no PEM certificate chain and its unencrypted key"
        raise Misconfigured(message) from None
