"""What a client shows the broker to prove who it is: a bearer token, or a certificate with its key."""

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from credbroker._errors import Misconfigured

MAX_FILE_BYTES = 1024 * 1024

TokenCallable: TypeAlias = Callable[[], str]
AsyncTokenCallable: TypeAlias = Callable[[], str | Awaitable[str]]

# Printable ASCII without spaces: what a metadata value may hold, and every token format uses.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class Bearer:
    """A token, fit to be sent, that does not show itself."""

    __slots__ = ("__token",)

    def __init__(self, token: object) -> None:
        if inspect.iscoroutine(token):
            token.close()
            raise Misconfigured("the token callable is asynchronous; use it with credbroker.aio.AsyncClient")
        if not isinstance(token, str):
            raise Misconfigured(f"the token must be text, not {type(token).__name__}")
        text = token.strip()
        if not _TOKEN.fullmatch(text):
            raise Misconfigured("the token must be 1 to 16384 printable ASCII characters without spaces")
        self.__token = text

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the call metadata that carries the token (RFC 6750)."""
        return (("authorization", f"Bearer {self.__token}"),)

    def __repr__(self) -> str:
        return "Bearer(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token cannot be pickled")


@dataclass(frozen=True, slots=True, repr=False)
class TokenCall:
    """A callable that is asked for a token before every attempt; it may block."""

    fetch: AsyncTokenCallable


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that is read before every attempt, so that a rotated token is noticed."""

    path: Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files for mutual TLS, leaf first; read again when they change."""

    certificate: Path
    key: Path


Evidence: TypeAlias = Bearer | TokenCall | TokenFile | Certificate


def read_token(file: TokenFile) -> Bearer:
    """Read the token in a file.

    Raises:
        Misconfigured: when there is none.
    """
    try:
        text = read_file(file.path).decode("ascii")
    except UnicodeDecodeError:
        raise Misconfigured(f"{file.path}: does not hold a token") from None
    try:
        return Bearer(text)
    except Misconfigured as error:
        raise Misconfigured(f"{file.path}: {error.message}") from None


def read_file(path: Path) -> bytes:
    """Read a small file.

    Raises:
        Misconfigured: when it cannot be read or is larger than one mebibyte.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise Misconfigured(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    return data
