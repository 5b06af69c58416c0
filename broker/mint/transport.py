"""HTTP to Vault for the hot path: one keep-alive pool, bounded in time and size, never redirected."""

import json
import ssl
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus

import aiohttp

from broker import config, deadline
from broker.clock import Clock
from broker.errors import ConfigError, VaultAway, VaultUnavailable
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
_MAX_CONNECTIONS = 128
_KEEP_ALIVE_SECONDS = 30.0
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
        ConfigError: when the CA file cannot be used.
    """

    def __init__(self, settings: config.Vault, clock: Clock) -> None:
        self.server_time = ServerTime(clock)
        self._clock = clock
        self._base = f"{settings.address.rstrip('/')}/v1/"
        self._url = lru_cache(_REMEMBERED_URLS)(self._build_url)
        self._headers = {"X-Vault-Request": "true", "Accept-Encoding": "identity"}
        if settings.namespace:
            self._headers["X-Vault-Namespace"] = settings.namespace
        self._timeout = settings.timeout.total_seconds()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=_tls(settings)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        # Reading an engine makes a credential: a GET whose reply was lost must
        # not be sent again behind our back.
        self._session._retry_connection = False

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
            ValueError: when a path segment is not allowed.
        """
        url = self._url(path)
        verb, url = ("GET", f"{url}?list=true") if method == "LIST" else (method, url)
        headers = self._headers if token is None else {**self._headers, "X-Vault-Token": token.reveal()}
        data = None if body is None else json.dumps(body).encode()
        deadline.require(_NO_TIME)
        asked_at = self._clock.monotonic()
        try:
            status, date, raw = await step(Step.VAULT_CALL, self._exchange(verb, url, data, headers, limit))
        except aiohttp.ClientConnectorError as error:
            raise VaultAway(f"{describe(method, path)}: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise VaultUnavailable(f"{describe(method, path)}: {_reason(error)}") from None
        if status == HTTPStatus.TEMPORARY_REDIRECT:
            raise VaultAway(f"{describe(method, path)}: redirected: vault.address must be the active server's")
        answer = {} if not raw and status in _WITHOUT_CONTENT else parse_object(raw)
        if answer is None:
            raise VaultUnavailable(f"{describe(method, path)}: status {status} without Vault's JSON")
        self.server_time.note(date, asked_at)
        return Answer(status, answer)

    async def _exchange(
        self, verb: str, url: str, data: bytes | None, headers: dict[str, str], limit: int
    ) -> tuple[int, str | None, bytes]:
        if trace := traceparent.get():
            headers = {**headers, "traceparent": trace}
        left = deadline.remaining()
        timeout = aiohttp.ClientTimeout(total=self._timeout if left is None else min(self._timeout, left))
        async with self._session.request(
            verb, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as reply:
            return reply.status, reply.headers.get("Date"), await _read(reply, limit)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _build_url(self, path: Path) -> str:
        return self._base + "/".join(map(safe_segment, path))


def describe(method: str, path: Path) -> str:
    """Name a request in an error."""
    return f"{method} {'/'.join(path)}"


async def _read(reply: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in reply.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    # Only the texts of these are known to hold nothing that was sent.
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientPayloadError):
        return str(error)
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _tls(settings: config.Vault) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"vault.ca_file: {settings.ca_file}: cannot be used: {error.strerror}") from None
