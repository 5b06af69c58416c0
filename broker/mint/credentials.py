"""Where the broker's own Vault token comes from: a file, or an AppRole login."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from broker import config
from broker.errors import VaultUnavailable
from broker.mint.replies import HEADER_TEXT, VaultRefused, printable_text, problem_of, section, whole_seconds
from broker.mint.transport import MAX_REPLY_BYTES, Transport
from broker.model import JsonObject, JsonValue
from broker.secret import Secret

_MAX_FILE_BYTES = 16 * 1024
# Vault says so of a token, a secret or a login that it does not accept.
_NOT_ACCEPTED = (400, 403)


class LoginRefused(Exception):
    """Vault answered, and accepts neither this token nor this login. Holds no secret."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, with the seconds it lives from when it was asked for; None for one without an end."""

    token: Secret[str]
    seconds: int | None
    renewable: bool


class Source(ABC):
    """One identity of the broker's in Vault."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def changed(self) -> bool:
        """Return whether another token is to be had than the last one obtained."""
        return False

    @abstractmethod
    async def obtain(self) -> Grant:
        """Return a token.

        Raises:
            VaultUnavailable: when there is none to be had at the moment.
            LoginRefused: when Vault refused.
        """

    async def look_up(self, token: Secret[str]) -> Grant:
        """Ask Vault about a token.

        Raises:
            VaultUnavailable: when Vault did not answer.
            LoginRefused: when Vault does not accept it.
        """
        data = section(await self._ask("GET", "auth/token/lookup-self", token=token), "data")
        return Grant(token, whole_seconds(data, "ttl"), data.get("renewable") is True)

    async def renew(self, token: Secret[str]) -> Grant:
        """Prolong a token.

        Raises:
            VaultUnavailable: when Vault did not answer.
            LoginRefused: when Vault refused.
        """
        auth = section(await self._ask("POST", "auth/token/renew-self", token=token), "auth")
        return Grant(token, whole_seconds(auth, "lease_duration"), auth.get("renewable") is True)

    async def _ask(
        self, method: str, path: str, body: JsonObject | None = None, token: Secret[str] | None = None
    ) -> dict[str, JsonValue]:
        answer = await self._transport.send(method, tuple(path.split("/")), token, body, MAX_REPLY_BYTES)
        problem = problem_of(answer.status, answer.body, path)
        if isinstance(problem, VaultRefused):
            if problem.status in _NOT_ACCEPTED:
                raise LoginRefused(problem.detail)
            raise VaultUnavailable(problem.detail)
        if problem is not None:
            raise problem
        return answer.body


class TokenFile(Source):
    """A token in a file that something else writes."""

    def __init__(self, transport: Transport, file: Path) -> None:
        super().__init__(transport)
        self._file = file
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Return whether the file is another one than was last read."""
        return self._stamp() not in (None, self._seen)

    async def obtain(self) -> Grant:
        """Read the file and ask Vault about the token in it."""
        stamp = self._stamp()
        grant = await self.look_up(await asyncio.to_thread(read_secret_file, self._file))
        self._seen = stamp
        return grant

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)


class AppRole(Source):
    """Vault's AppRole login."""

    def __init__(self, transport: Transport, auth: config.AppRoleAuth) -> None:
        super().__init__(transport)
        self._auth = auth

    async def obtain(self) -> Grant:
        """Log in."""
        secret_id = await asyncio.to_thread(read_secret_file, self._auth.secret_id_file)
        body = {"role_id": self._auth.role_id, "secret_id": secret_id.reveal()}
        path = f"auth/{self._auth.mount}/login"
        auth = section(await self._ask("POST", path, body), "auth")
        token = printable_text(auth, "client_token")
        if token is None:
            raise VaultUnavailable(f"{path}: the answer holds no token")
        return Grant(Secret(token), whole_seconds(auth, "lease_duration"), auth.get("renewable") is True)


def source_of(transport: Transport, auth: config.VaultAuth) -> Source:
    """Return the source that the configuration names."""
    return TokenFile(transport, auth.file) if isinstance(auth, config.TokenFileAuth) else AppRole(transport, auth)


def read_secret_file(file: Path) -> Secret[str]:
    """Return a secret that is the only line of a file.

    Raises:
        VaultUnavailable: when it cannot be read, or holds anything else.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise VaultUnavailable(f"{file}: {error.strerror}") from None
    text = content.decode("ascii", "replace").strip()
    if len(content) > _MAX_FILE_BYTES or not HEADER_TEXT.fullmatch(text):
        raise VaultUnavailable(f"{file}: must hold one line of printable characters")
    return Secret(text)
