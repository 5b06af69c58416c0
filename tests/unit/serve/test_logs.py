"""Logs: readable by machines, harmless to terminals, silent about secrets."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.serve import logs

CANARY = "hvs.CAESICANARY"

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    logs.configure("info", "json")

    def read() -> list[dict[str, object]]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return [json.loads(line) for line in captured.err.splitlines()]

    return read


def test_one_json_object_per_line(lines: Lines) -> None:
    structlog.get_logger("broker.somewhere").info("request", method="x/Y", duration_ms=1.5, ok=True, nothing=None)
    (line,) = lines()
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "broker.somewhere",
        "method": "x/Y",
        "duration_ms": 1.5,
        "ok": True,
        "nothing": None,
    }


REQUEST = {"method": "x/Y", "code": "OK", "reason": "", "duration_ms": 1.5, "agent": "spiffe://a/b", "peer": "::1"}


def ended(**changes: Any) -> None:
    logs.log_request(**{**REQUEST, **changes})


@pytest.mark.parametrize("replica", ["", "replica-1\x1b"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"code": "PERMISSION_DENIED", "reason": "SCOPE_DENIED", "duration_ms": 0.001},
        {"agent": 'https://i#"\x1b[2J\n\u202e\u00e9', "peer": "\ud800\\"},
        {"agent": "a" * 100_000},
    ],
)
def test_a_request_is_rendered_as_any_other_record(
    capsys: pytest.CaptureFixture[str], replica: str, changes: dict[str, Any]
) -> None:
    logs.configure("info", "json", replica)
    ended(**changes)
    structlog.get_logger("broker.serve.interceptor").info("request", **{**REQUEST, **changes})
    prepared, other = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert datetime.fromisoformat(prepared.pop("timestamp")) <= datetime.fromisoformat(other.pop("timestamp"))
    assert list(prepared.items()) == list(other.items())


def test_a_request_says_what_is_bound_to_its_context(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(trace_id="abc"):
        ended()
    ended()
    traced, untraced = lines()
    assert traced.pop("trace_id") == "abc"
    assert traced.keys() == untraced.keys()


def test_requests_are_shown_to_people_too_and_hidden_by_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    ended()
    shown = capsys.readouterr().err
    assert "request" in shown
    assert "spiffe://a/b" in shown
    logs.configure("warning", "json")
    ended()
    assert capsys.readouterr().err == ""


async def test_requests_of_one_turn_are_written_together_and_before_what_follows(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(sys.stderr, "write", written.append)
    ended(peer="1")
    ended(peer="2")
    assert written == []
    await asyncio.sleep(0)
    assert [text.count("\n") for text in written] == [2]
    ended(peer="3")
    structlog.get_logger().warning("careful")
    assert ['"peer": "3"' in text for text in written[1:]] == [True, False]


async def test_a_log_that_nobody_takes_fails_no_request(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_text: str) -> None:
        raise BrokenPipeError

    with monkeypatch.context() as broken:
        broken.setattr(sys.stderr, "write", refuse)
        ended(peer="lost")
        await asyncio.sleep(0)
    ended(peer="kept")
    await asyncio.sleep(0)
    assert [line["peer"] for line in lines()] == ["kept"]


def test_each_record_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json", "replica-1")
    structlog.get_logger().info("ready")
    logging.getLogger("library").warning("careful")
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["replica"]) for line in shown] == [("ready", "replica-1"), ("careful", "replica-1")]


def test_level_filters(lines: Lines) -> None:
    logger = structlog.get_logger()
    logger.debug("hidden")
    logger.warning("shown")
    assert [line["event"] for line in lines()] == ["shown"]


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    structlog.get_logger().info("request", agent="spiffe://a/b\x1b[2J\nfaked line", token=CANARY)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    assert CANARY not in error
    assert "spiffe://a/b" in error


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "password",
        "secret",
        "authorization",
        "Authorization",
        "vault_token",
        "clientSecret",
        "db-password",
        "TOKEN",
    ],
)
def test_values_under_secret_keys_are_redacted_at_any_depth(lines: Lines, key: str) -> None:
    structlog.get_logger().info("x", **{key: CANARY}, nested={"list": [{key: {"a": CANARY}}]})
    (line,) = lines()
    assert line[key] == logs.REDACTED
    assert line["nested"] == {"list": [{key: logs.REDACTED}]}


def test_keys_that_only_sound_alike_are_kept(lines: Lines) -> None:
    structlog.get_logger().info("x", tokenizer="a", secretary="b", authority="c")
    assert lines()[0].items() >= {"tokenizer": "a", "secretary": "b", "authority": "c"}.items()


@pytest.mark.parametrize("text", ["\r\n", "\x1b[31m", "\0", "\x9b", "\u202e", "\u2028", "\ud800"])
def test_characters_that_act_are_escaped_in_keys_values_and_events(lines: Lines, text: str) -> None:
    structlog.get_logger().info(f"event{text}", **{f"key{text}": [{f"inner{text}": f"value{text}"}]})
    escaped = text.encode("unicode_escape").decode()
    (line,) = lines()
    assert line["event"] == f"event{escaped}"
    assert line[f"key{escaped}"] == [{f"inner{escaped}": f"value{escaped}"}]


def test_secrets_bytes_and_foreign_objects_are_not_spelled_out(lines: Lines) -> None:
    structlog.get_logger().info("x", held=Secret(CANARY), raw=CANARY.encode(), thing={1, 2}.__class__)
    (line,) = lines()
    assert line["held"] == "Secret(***)"
    assert line["raw"] == f"[{len(CANARY)} bytes]"


def test_long_and_deep_values_are_cut(lines: Lines) -> None:
    deep: object = "end"
    for _ in range(50):
        deep = [deep]
    structlog.get_logger().info("x", long="a" * 100_000, deep=deep, many=list(range(10_000)))
    (line,) = lines()
    assert len(str(line["long"])) == 4000
    assert "end" not in str(line["deep"])
    assert len(str(line["many"])) < 1000


def raise_chain() -> None:
    try:
        raise ConnectionError(f"refused, headers were {CANARY}")
    except ConnectionError as error:
        raise KeyError(CANARY) from error


def test_exceptions_show_type_place_and_causes_but_no_text(lines: Lines) -> None:
    logger = structlog.get_logger()
    try:
        raise_chain()
    except KeyError as error:
        logger.exception("failed")
        logger.error("failed", exc_info=error)
        logger.error("failed", why=error)
    first, second, third = lines()
    assert CANARY not in str((first, second, third))
    assert first["exception"] == second["exception"]
    described = str(first["exception"])
    assert "builtins.KeyError" in described
    assert "builtins.ConnectionError" in described
    assert "raise_chain" in described
    assert third["why"] == "builtins.KeyError"


def test_exceptions_are_shown_to_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    try:
        raise_chain()
    except KeyError as error:
        structlog.get_logger().error("failed", exc_info=error)
        logging.getLogger("library").error("failed as well", exc_info=error)
    shown = capsys.readouterr().err
    assert shown.count("builtins.KeyError") == shown.count("builtins.ConnectionError") == 2
    assert "failed as well" in shown
    assert CANARY not in shown


def raise_without_context() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        raise KeyError from None


def test_suppressed_context_is_left_out() -> None:
    with pytest.raises(KeyError) as caught:
        raise_without_context()
    assert not any("ValueError" in line for line in logs.describe(caught.value))


def test_the_brokers_own_errors_say_their_detail(lines: Lines) -> None:
    structlog.get_logger().warning("not ready", reason=StoreUnavailable("disk full"))
    assert lines()[0]["reason"] == "StoreUnavailable: disk full"


def test_libraries_are_heard_from_warning_on_and_cleaned_too(lines: Lines) -> None:
    logger = logging.getLogger("some.library")
    logger.info("hidden")
    logger.warning("lost connection to %s", "host\x1b[2J")
    try:
        raise_chain()
    except KeyError:
        logger.exception("broke")
    first, second = lines()
    assert (first["logger"], first["level"]) == ("some.library", "warning")
    assert first["event"] == "lost connection to host\\x1b[2J"
    assert CANARY not in str(second)
    assert "raise_chain" in str(second["exception"])


def test_a_record_that_cannot_be_written_is_not_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("some.library").warning("%d", CANARY)
    assert capsys.readouterr().err == "a log record of a library could not be written\n"
