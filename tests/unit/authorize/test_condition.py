"""Conditions: exactly true, or refused."""

import contextlib
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.authorize.condition import Condition
from broker.errors import ScopeDenied
from broker.model import JsonValue

REQUEST = {"time": datetime(2026, 1, 1, 12, 30, tzinfo=UTC), "ttl_seconds": 300}


def detail(source: str, **values: object) -> str:
    with pytest.raises(ScopeDenied) as caught:
        Condition(source).check(values)
    assert caught.value.message == ScopeDenied.message
    return caught.value.detail


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("true", {}),
        ("agent.claims.team == 'x'", {"agent": {"claims": {"team": "x"}}}),
        ("agent.spiffe_id == null", {"agent": {"spiffe_id": None}}),
        ("'x' in agent.claims.groups", {"agent": {"claims": {"groups": ["x"]}}}),
        ("params.tables.all(t, t.startsWith('rep_'))", {"params": {"tables": ["rep_a"]}}),
        ("!has(params.table) || params.table == 'a'", {"params": {}}),
        ("request.time >= timestamp('2026-01-01T00:00:00Z')", {"request": REQUEST}),
        ("request.time - duration('1h') < timestamp('2026-01-01T12:00:00Z')", {"request": REQUEST}),
        ("request.time.getHours() == 12 && request.time.getDayOfWeek() == 4", {"request": REQUEST}),
        ("request.ttl_seconds <= 300", {"request": REQUEST}),
        ("task.purpose.matches('^ticket-[0-9]+$')", {"task": {"purpose": "ticket-5"}}),
        ("params.n == 1 && params.x == 1.5", {"params": {"n": 1, "x": 1.5}}),
    ],
)
def test_true(source: str, values: dict[str, object]) -> None:
    Condition(source).check(values)


@pytest.mark.parametrize(
    ("source", "params"),
    [
        ("false", {}),
        ("params.a == 1", {"a": 2}),
        ("params.a == 1", {"a": True}),
        ("params.a == true", {"a": 1}),
        ("params.a == 'x'", {"a": "X"}),
        ("params.a.matches('^x$')", {"a": "x\n"}),
    ],
)
def test_not_true(source: str, params: dict[str, JsonValue]) -> None:
    assert detail(source, params=params) == "the condition is not true"


@pytest.mark.parametrize("source", ["1", "'true'", "null", "[true]", "params.a", "params"])
def test_what_is_merely_truthy_is_not_true(source: str) -> None:
    assert detail(source, params={"a": 1}) == "the condition is not true"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("params.missing == 1", "KeyError"),
        ("params.a.b == 1", "TypeError"),
        ("params.a < 'x'", "TypeError"),
        ("1 / params.zero == 1", "ZeroDivisionError"),
        ("params.big + 1 > 0", "OverflowError"),
        ("params.list[5] == 1", "IndexError"),
        ("timestamp(params.text) > timestamp('2026-01-01T00:00:00Z')", "RuntimeError"),
        ("params.surrogate == 'x'", "ValueError"),
    ],
)
def test_what_fails_is_not_true(source: str, expected: str) -> None:
    params = {"a": 1, "zero": 0, "big": 2**63 - 1, "list": [1], "text": "x"}
    if "surrogate" in source:
        params = {"surrogate": "\ud800"}
    assert detail(source, params=params).startswith(f"the condition failed: {expected}")


def test_details_are_of_moderate_length() -> None:
    assert len(detail("timestamp(params.a) == request.time", params={"a": "x" * 1000}, request=REQUEST)) < 300


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("agent.uri ==", "must be a CEL expression; at 1:13: Syntax error: mismatched input '<EOF>'"),
        ("agent.uri == 'x'\n&& (", "at 2:5: "),
        ("a b", "does not know 'a'"),
        (".agent.uri == 'x'", "does not know '.agent'"),
        ("'x'.lowerAscii() == 'x'", "does not know the function 'lowerAscii'"),
        ("type(agent.uri) == 'string'", "does not know the function 'type'"),
        ("hash(agent.uri) == 'x'", "does not know the function 'hash'"),
        ("task.purpose.matches('ticket')", "gives 'matches' what must begin with"),
        ("task.purpose.matches('^main|develop$')", "parentheses"),
        ("task.purpose.matches('^(?=a)$')", "look-around"),
        ("task.purpose.matches(b'^a$')", "text"),
        ("agent.uri @ 1", "must be a CEL expression"),
        ("9" * 4000 + " == 1", "must be a CEL expression"),
    ],
)
def test_refuses_at_compile_time(source: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        Condition(source)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("source", "roots", "needs_request"),
    [
        ("true", set(), False),
        ("agent.uri == task.purpose", {"agent", "task"}, False),
        ("request.time > timestamp('2026-01-01T00:00:00Z')", {"request"}, False),
        ("request.ttl_seconds < 5", {"request"}, True),
        ("request['ttl_seconds'] < 5", {"request"}, True),
        ("has(params.a)", {"params"}, True),
        ("agent.uri == 'params' && true // params", {"agent"}, False),
    ],
)
def test_knows_what_it_depends_on(source: str, roots: set[str], needs_request: bool) -> None:
    condition = Condition(source)
    assert condition.roots == roots
    assert condition.needs_request is needs_request


PATHOLOGICAL = [
    "(" * 4096,
    "(" * 2000 + "1" + ")" * 2000,
    "!" * 4091 + "true",
    "-" * 4095 + "1",
    "!-" * 2000 + "1",
    "[" * 4096,
    "[" * 2000 + "]" * 2000,
    "{" * 4096,
    "{1:" * 1000 + "1" + "}" * 1000,
    "1+" * 2047 + "1",
    "true&&" * 681 + "true",
    "true?1:" * 580 + "1",
    "'a'" + "[0]" * 1364,
    "params" + ".a" * 2040,
    "size(" * 680 + "1" + ")" * 680,
    "[1].map(x," * 370 + "1" + ")" * 370,
    "'" + "\\" * 4000,
    '"""' * 1300,
    "1==" * 1300 + "1",
    "1+" * 499 + "1",
    "params" + ".a" * 499,
    "params" + "[0]" * 332,
    "true&&" * 499 + "true",
]


@pytest.mark.parametrize("source", PATHOLOGICAL, ids=range(len(PATHOLOGICAL)))
def test_nothing_crashes_the_process(source: str) -> None:
    """Compiled and run with an eighth of a usual stack, where a crash would take the test run with it."""
    failures: list[BaseException] = []

    def compile_and_run() -> None:
        try:
            with contextlib.suppress(ValueError, ScopeDenied):
                Condition(source).check({"params": {}})
        except BaseException as error:
            failures.append(error)

    usual = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=compile_and_run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(usual)
    assert failures == []


WORDS = [
    *("agent.uri", "params.a", "task.labels", "request.time", "true", "false", "null", "1", "-1", "1.5", "'a'"),
    *("[1]", "{'a':1}", "(", ")", "[", "]", "{", "}", ",", ".", "?", ":", "!", "&&", "||", "==", "!=", "<", ">="),
    *("+", "-", "*", "/", "%", "in", "size(", "has(", ".exists(x,", ".all(x,", ".map(x,", "x", "timestamp("),
    *(".matches('^a$')", ".startsWith("),
]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_whatever_is_written_is_compiled_or_refused(words: list[str]) -> None:
    values = {"agent": {"uri": "a"}, "params": {"a": [1, "a"]}, "task": {"labels": {}}, "request": REQUEST}
    with contextlib.suppress(ValueError, ScopeDenied):
        Condition(" ".join(words)).check(values)
