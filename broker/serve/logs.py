"""Structured logs on standard error.

All that is logged passes `clean`, the libraries' records included. Values
under keys that name secrets are redacted; characters that a terminal or a log
viewer might act on are escaped; exceptions are shown by type and place, since
their texts and arguments may hold what must not be logged.

Every request leaves a line. That one has a rendering of its own, with the same
fields, and the lines of one turn of the event loop are written together.
"""

import asyncio
import atexit
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring_ascii as quote
from typing import Final, Literal, TypeAlias

import structlog

from broker.errors import BrokerError
from broker.terminal import printable

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Event: TypeAlias = MutableMapping[str, object]

REDACTED: Final = "[redacted]"

_REQUESTS = "broker.serve.interceptor"
_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

_SECRET_WORDS = frozenset({"token", "tokens", "password", "passwords", "secret", "secrets", "authorization"})
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_MAX_TEXT = 4000
_MAX_DEPTH = 6
_MAX_ITEMS = 100
_MAX_FRAMES = 30
_MAX_CAUSES = 5
_MAX_ENDINGS = 1024


def configure(level: Level, format: Literal["json", "text"], replica: str = "") -> None:  # noqa: A002 - the setting's
    """Set up logging for the process, in place of any earlier set-up.

    Libraries are heard from ``warning`` on, whatever the level: their finer
    records are not written with secrets in mind.

    Args:
        level: The least severe level that is shown.
        format: One JSON object per line, or text for people.
        replica: Whose records these are; said in each, unless empty.
    """

    def signed(_logger: object, _method: str, event: Event) -> Event:
        return {"replica": replica, **event} if replica else event

    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        signed,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _stamp,
        clean,
    ]
    renderers: list[structlog.typing.Processor] = (
        [_Json(replica, level)] if format == "json" else [_join_exception, structlog.dev.ConsoleRenderer(colors=False)]
    )
    structlog.configure(
        processors=[*processors, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR if level == "error" else logging.WARNING)


def log_request(*, method: str, code: str, reason: str, duration_ms: float, agent: str, peer: str) -> None:
    """Log the end of a request.

    As JSON the line costs a quarter of what another one does, unless something
    is bound to the context that it must say too.

    Args:
        method: Full name of the RPC.
        code: Name of the gRPC code.
        reason: Of the error tree; empty unless it was refused.
        duration_ms: How long it took, in milliseconds.
        agent: URI of the caller; empty while it is not known.
        peer: Network address of the caller.
    """
    renderer = structlog.get_config()["processors"][-1]
    if isinstance(renderer, _Json) and not structlog.contextvars.get_contextvars():
        renderer.log_request(method, code, reason, duration_ms, agent, peer)
        return
    structlog.get_logger(_REQUESTS).info(
        "request", method=method, code=code, reason=reason, duration_ms=duration_ms, agent=agent, peer=peer
    )


def clean(_logger: object, _method: str, event: Event) -> Event:
    """Redact, escape and bound everything in a log record; a structlog processor."""
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = describe(error)
    kept = {key: value for key, value in event.items() if key.startswith("_")}
    return {**_clean_mapping(event, 0), **kept}


def _join_exception(_logger: object, _method: str, event: Event) -> Event:
    """Make one text of an exception's lines, as the renderer for people wants it."""
    lines = event.get("exception")
    return {**event, "exception": "\n".join(lines)} if isinstance(lines, list) else event


def describe(error: BaseException) -> list[str]:
    """Return an exception's type, the places it came through, and its causes.

    Texts of exceptions are left out, except for the broker's own, whose
    ``detail`` never is a secret.
    """
    lines: list[str] = []
    current: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if current is None:
            break
        lines.append(_name(current))
        frames = traceback.extract_tb(current.__traceback__)[-_MAX_FRAMES:]
        lines += [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines


class _Waiting(threading.local):
    """Lines of this thread's event loop that its next turn writes in one go."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Let a line wait; write it now where there is no loop."""
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.write)
        except RuntimeError:
            self.write()

    def write(self) -> None:
        """Write what waits. What nobody takes is lost: it belongs to no request by now that could fail for it."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            with suppress(OSError):
                sys.stderr.write(text)


_waiting = _Waiting()
atexit.register(_waiting.write)


class _Json(structlog.processors.JSONRenderer):
    """Renders lines as JSON, and those of requests from what does not change among them."""

    def __init__(self, replica: str, level: Level) -> None:
        super().__init__()
        self._shows_requests = level in ("debug", "info")
        self._replica = f'"replica": {quote(_clean_text(replica))}, ' if replica else ""
        self._begin = lru_cache(_MAX_ENDINGS)(self._beginning)
        self._middle = f', "event": "request", "logger": {quote(_REQUESTS)}, "level": "info", "timestamp": "'

    def log_request(self, method: str, code: str, reason: str, duration_ms: float, agent: str, peer: str) -> None:
        """See `broker.serve.logs.log_request`."""
        if self._shows_requests:
            who = f'"agent": {quote(_clean_text(agent))}, "peer": {quote(_clean_text(peer))}'
            time = _stamp(None, "info", {})["timestamp"]
            begin = self._begin(method, code, reason)
            _waiting.add(f'{begin}"duration_ms": {duration_ms!r}, {who}{self._middle}{time}"}}\n')

    def _beginning(self, method: str, code: str, reason: str) -> str:
        facts = {"method": method, "code": code, "reason": reason}
        return f"{{{self._replica}{''.join(f'{quote(key)}: {quote(_clean_text(facts[key]))}, ' for key in facts)}"


class _Lines:
    """Writes finished lines; remembers the logger's name for `add_logger_name`."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        _waiting.write()
        sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = msg


class _StandardError(logging.Handler):
    """Writes libraries' records to wherever standard error is now."""

    def emit(self, record: logging.LogRecord) -> None:
        _waiting.write()
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            # logging's own report would spell out the record's arguments.
            sys.stderr.write("a log record of a library could not be written\n")


def _exception(given: object) -> BaseException | None:
    match given:
        case BaseException():
            return given
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exc_info()[1]
        case _:
            return None


def _name(error: BaseException) -> str:
    if isinstance(error, BrokerError):
        return f"{type(error).__name__}: {error.detail}"
    return f"{type(error).__module__}.{type(error).__qualname__}"


@lru_cache(maxsize=1024)
def _names_secret(key: str) -> bool:
    return any(word.lower() in _SECRET_WORDS for word in _WORD.findall(key))


def _clean_mapping(values: Mapping[str, object], depth: int) -> dict[str, object]:
    return {
        _clean_text(str(key)): REDACTED if _names_secret(str(key)) else _clean(value, depth + 1)
        for key, value in islice(values.items(), _MAX_ITEMS)
    }


def _clean(value: object, depth: int) -> object:
    match value:
        case str():
            return _clean_text(value)
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray():
            return f"[{len(value)} bytes]"
        case BaseException():
            return _clean_text(_name(value))
        case _ if depth > _MAX_DEPTH:
            return "[…]"
        case Mapping():
            return _clean_mapping(value, depth)
        case list() | tuple() | set() | frozenset():
            return [_clean(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
        case _:
            return _clean_text(str(value))


def _clean_text(text: str) -> str:
    return printable(text[:_MAX_TEXT])
