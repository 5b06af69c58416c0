"""Structured logs on standard error.

All that is logged passes `clean`, the libraries' records included. Values
under keys that name secrets are redacted; characters that a terminal or a log
viewer might act on are escaped; exceptions are shown by type and place, since
their texts and arguments may hold what must not be logged.
"""

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import Final, Literal, TypeAlias

import structlog

from broker.errors import BrokerError
from broker.terminal import printable

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Event: TypeAlias = MutableMapping[str, object]

REDACTED: Final = "[redacted]"

_SECRET_WORDS = frozenset({"token", "tokens", "password", "passwords", "secret", "secrets", "authorization"})
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_MAX_TEXT = 4000
_MAX_DEPTH = 6
_MAX_ITEMS = 100
_MAX_FRAMES = 30
_MAX_CAUSES = 5


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
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        clean,
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if format == "json"
        else [_join_exception, structlog.dev.ConsoleRenderer(colors=False)]
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


class _Lines:
    """Writes finished lines; remembers the logger's name for `add_logger_name`."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = msg


class _StandardError(logging.Handler):
    """Writes libraries' records to wherever standard error is now."""

    def emit(self, record: logging.LogRecord) -> None:
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
