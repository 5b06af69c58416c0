"""HTTP to Vault for the hot path: one keep-alive pool, bounded in time and size, never redirected."""

import ssl
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from pydantic_core import to_json

from broker import config, deadline
from broker.clock import Clock
from broker.errors import ConfigError, VaultAway, VaultUnavailable
from broker.http1.pool import CannotConnect, Pool
from broker.http1.reply_reader import NoAnswer, Reply
from broker.mint.paths import safe_segment
from broker.mint.replies import parse_object
from broker.mint.server_time import ServerTime
from broker.model import JsonObject, JsonValue
from broker.secret import Secret
from broker.step import Step, step
from broker.traceparent import traceparent

MAX_REPLY_BYTES = 1024 * 1024
# Accepted, for later; and no content.
_WITHOUT_CONTENT = (202, 204)
_REMEMBERED_URLS = 1024
_NO_TIME = timedelta(0)

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that came from Vault: its status and its JSON object, empty when there was no content."""

    status: int
    body: dict[str, JsonValue]


class Transport:
    """Sends requests to one Vault. To be made while an event loop runs.

    Attributes:
        server_time: What Vault's clock says.

    Raises:
        ConfigError: when the CA file or the address cannot be used.
    """

    def __init__(self, settings: config.Vault, clock: Clock) -> None:
        self.server_time = ServerTime(clock)
        self._clock = clock
        self._timeout = settings.timeout.total_seconds()
        try:
            self._pool = Pool(settings.address, _tls(settings))
        except ValueError:
            raise ConfigError(f"vault.address: {settings.address}: is no URL") from None
        address = urlsplit(settings.address)
        self._base = f"{address.path.rstrip('/')}/v1/"
        self._url = lru_cache(_REMEMBERED_URLS)(self._build_url)
        namespace = f"X-Vault-Namespace: {settings.namespace}\r\n" if settings.namespace else ""
        self._fields = (
            f" HTTP/1.1\r\nHost: {address.netloc}\r\nUser-Agent: credbroker\r\nAccept-Encoding: identity\r\n"
            f"X-Vault-Request: true\r\n{namespace}"
        )

    async def send(
        self, method: str, path: Path, token: Secret[str] | None, body: JsonObject | None, limit: int
    ) -> Answer:
        """Send one request and return Vault's answer, whatever its status.

        Vault has as long as the settings say, or as the request's deadline
        leaves, whichever is less.

        Args:
            method: HTTP method, or ``LIST``, which Vault takes as a ``GET`` too:
                intermediaries that know no other methods let that pass.
            path: Segments below ``/v1``; each is checked.
            token: Vault token to send, if any.
            body: JSON object to send, if any.
            limit: Most bytes of a reply.

        Raises:
            VaultAway: when no connection came about, or a standby answered.
            VaultUnavailable: when no whole answer came, or not from Vault: it
                may have acted all the same.
            DeadlineExceeded: when the deadline had passed: nothing was sent.
            ValueError: when a path segment is not allowed, or the token cannot
                stand in a header.
        """
        url = self._url(path)
        verb, url = ("GET", f"{url}?list=true") if method == "LIST" else (method, url)
        sent = "" if token is None else _field("X-Vault-Token", token.reveal())
        content = b"" if body is None else to_json(body)
        deadline.require(_NO_TIME)
        asked_at = self._clock.monotonic()
        try:
            status, date, raw = await step(Step.VAULT_CALL, self._exchange(verb, url, sent, content, limit))
        except CannotConnect as error:
            raise VaultAway(f"{describe(method, path)}: {error}") from None
        except NoAnswer as error:
            raise VaultUnavailable(f"{describe(method, path)}: {error}") from None
        except TimeoutError:
            raise VaultUnavailable(f"{describe(method, path)}: no answer in time") from None
        if status == HTTPStatus.TEMPORARY_REDIRECT:
            raise VaultAway(f"{describe(method, path)}: redirected: vault.address must be the active server's")
        answer = {} if not raw and status in _WITHOUT_CONTENT else parse_object(raw)
        if answer is None:
            raise VaultUnavailable(f"{describe(method, path)}: status {status} without Vault's JSON")
        self.server_time.note(date, asked_at)
        return Answer(status, answer)

    async def _exchange(self, verb: str, url: str, token: str, content: bytes, limit: int) -> Reply:
        trace = traceparent.get()
        head = (
            f"{verb} {url}{self._fields}{token}"
            f"{_field('traceparent', trace) if trace else ''}"
            f"{_length(content) if content else ''}\r\n"
        )
        left = deadline.remaining()
        with deadline.limited(self._timeout if left is None else min(self._timeout, left)):
            return await self._pool.exchange(head.encode("ascii") + content, limit)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def _build_url(self, path: Path) -> str:
        return self._base + "/".join(map(safe_segment, path))


def describe(method: str, path: Path) -> str:
    """Name a request in an error."""
    return f"{method} {'/'.join(path)}"


def _field(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} must be printable")
    return f"{name}: {value}\r\n"


def _length(content: bytes) -> str:
    return f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"


def _tls(settings: config.Vault) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"vault.ca_file: {settings.ca_file}: cannot be used: {error.strerror}") from None
