"""The broker as a command reaches it: one channel, the caller's evidence on every call."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Before gRPC is loaded: its core would otherwise write about failed handshakes
# into the middle of what a command prints.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from credbroker.v1.audit_service_pb2_grpc import AuditServiceStub
from credbroker.v1.lock_service_pb2_grpc import LockServiceStub
from credbroker.v1.revocation_service_pb2_grpc import RevocationServiceStub
from credbroker.v1.scope_service_pb2_grpc import ScopeServiceStub
from credbroker.v1.status_service_pb2_grpc import StatusServiceStub
from credbroker.v1.task_service_pb2_grpc import TaskServiceStub

from broker.cli.failures import MISUSED, Failure, from_rpc
from broker.secret import Secret, SecretText

CALL_TIMEOUT_SECONDS = 20.0
MAX_REPLY_BYTES = 64 * 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024
TOKEN_VARIABLE = "CREDBROKER_TOKEN"  # noqa: S105 - the name of a variable

Request = TypeVar("Request")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the broker, from options and the environment.

    Attributes:
        address: ``host:port``.
        ca_file: CA bundle; the system's by default.
        token: Bearer token, for the bearer listener.
        cert_file: Client certificate chain, for the mutual-TLS listener.
        key_file: Its private key.
    """

    address: str
    ca_file: Path | None = None
    token: SecretText | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def resolve(options: Mapping[str, str], environ: Mapping[str, str]) -> Connection:
    """Return the connection that options and environment ask for.

    Evidence given by options wins over evidence in the environment. Two kinds
    of evidence at one level are refused: the broker would not fall back from
    one to the other, and which one was meant cannot be known.

    Args:
        options: ``address``, ``ca_file``, ``token_file``, ``token_env``,
            ``cert_file`` and ``key_file``, as far as they are given.
        environ: The environment.

    Raises:
        Failure: when something is missing, contradictory or unreadable.
    """
    given = {name: value for name, value in options.items() if value}
    address = given.get("address") or environ.get("CREDBROKER_ADDRESS")
    if not address:
        raise _misused("no address of the broker", "set CREDBROKER_ADDRESS or give --address host:port")
    ca_file = given.get("ca_file") or environ.get("CREDBROKER_CA_FILE")
    by_option = {name for name in given if name in ("token_file", "token_env", "cert_file", "key_file")}
    evidence = _from_options(given, environ) if by_option else _from_environment(environ)
    return Connection(address, Path(ca_file) if ca_file else None, *evidence)


_Evidence = tuple[SecretText | None, Path | None, Path | None]


def _from_options(given: Mapping[str, str], environ: Mapping[str, str]) -> _Evidence:
    files = _pair(given.get("cert_file"), given.get("key_file"), "--cert-file", "--key-file")
    tokens = [name for name in ("token_file", "token_env") if name in given]
    if len(tokens) + (files is not None) > 1:
        raise _misused("more than one kind of evidence", "give one of --token-file, --token-env and --cert-file")
    if files is not None:
        return None, *files
    if "token_file" in given:
        return _token(read_file(Path(given["token_file"])).decode("utf-8", "replace"), given["token_file"]), None, None
    variable = given["token_env"]
    if not environ.get(variable):
        raise _misused(f"the environment variable {variable} is empty", "put the token into it")
    return _token(environ[variable], variable), None, None


def _from_environment(environ: Mapping[str, str]) -> _Evidence:
    names = ("CREDBROKER_CERT_FILE", "CREDBROKER_KEY_FILE")
    files = _pair(environ.get(names[0]), environ.get(names[1]), *names)
    text, token_file = environ.get(TOKEN_VARIABLE), environ.get("CREDBROKER_TOKEN_FILE")
    if sum((bool(text), bool(token_file), files is not None)) > 1:
        advice = "keep one of CREDBROKER_TOKEN, CREDBROKER_TOKEN_FILE and CREDBROKER_CERT_FILE"
        raise _misused("more than one kind of evidence in the environment", advice)
    if files is not None:
        return None, *files
    if token_file:
        return _token(read_file(Path(token_file)).decode("utf-8", "replace"), token_file), None, None
    return (_token(text, TOKEN_VARIABLE) if text else None), None, None


def _pair(cert: str | None, key: str | None, cert_name: str, key_name: str) -> tuple[Path, Path] | None:
    if cert and key:
        return Path(cert), Path(key)
    if cert or key:
        raise _misused(f"{cert_name if cert else key_name} is set alone", f"{cert_name} and {key_name} go together")
    return None


def _token(text: str, source: str) -> SecretText:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise _misused(f"{source} holds no token", "it must be one line of printable ASCII without spaces")
    return Secret(token)


def read_file(path: Path) -> bytes:
    """Return a small file's content.

    Raises:
        Failure: when it cannot be read or is too large.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", exit_code=MISUSED) from None
    if len(content) > MAX_FILE_BYTES:
        raise Failure(f"{path} is larger than {MAX_FILE_BYTES} bytes", exit_code=MISUSED)
    return content


def _misused(message: str, advice: str) -> Failure:
    return Failure(message, advice=advice, exit_code=MISUSED)


class Remote:
    """The broker's services, for one command.

    Attributes:
        tasks, scopes, locks, revocations, status, audit: The generated stubs;
            call them through `call`.
    """

    def __init__(self, channel: grpc.Channel, connection: Connection) -> None:
        self.tasks = TaskServiceStub(channel)
        self.scopes = ScopeServiceStub(channel)
        self.locks = LockServiceStub(channel)
        self.revocations = RevocationServiceStub(channel)
        self.status = StatusServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self._connection = connection

    def call(self, method: "grpc.UnaryUnaryMultiCallable[Request, Reply]", request: Request) -> Reply:
        """Make one call.

        Raises:
            Failure: when the broker refused or could not be reached.
        """
        token = self._connection.token
        metadata = () if token is None else (("authorization", f"Bearer {token.reveal()}"),)
        try:
            return method(request, timeout=CALL_TIMEOUT_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            raise from_rpc(error, self._connection.address) from None


@contextmanager
def connect(connection: Connection) -> Iterator[Remote]:
    """Open a channel for the time of one command. It is always TLS.

    Raises:
        Failure: when a certificate or key cannot be read.
    """
    roots = read_file(connection.ca_file) if connection.ca_file else None
    chain = read_file(connection.cert_file) if connection.cert_file else None
    key = read_file(connection.key_file) if connection.key_file else None
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = [("grpc.max_receive_message_length", MAX_REPLY_BYTES)]
    with grpc.secure_channel(connection.address, credentials, options) as channel:
        yield Remote(channel, connection)
