"""Bounds of the values that agents send (threat 11)."""

import pytest

from broker.authorize.bounds import MAX_CHARS, MAX_DEPTH, MAX_NUMBER, MAX_TOTAL_CHARS, find_excess, is_deeper_than
from broker.errors import FieldViolation
from broker.model import JsonValue


def nested(depth: int) -> JsonValue:
    value: JsonValue = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def excess(value: JsonValue) -> FieldViolation:
    found = find_excess({"a": value})
    assert found is not None
    return found


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -MAX_NUMBER,
        1.5,
        "é" * MAX_CHARS,
        [1] * 254,
        nested(MAX_DEPTH - 1),
        {"k" * 128: "x"},
        ["x" * 1024] * 16,
    ],
)
def test_within_bounds(value: JsonValue) -> None:
    assert find_excess({"a": value}) is None


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ("x" * (MAX_CHARS + 1), "parameters.a", "1024 characters"),
        ("a\0b", "parameters.a", "without NUL"),
        ("\ud800", "parameters.a", "text"),
        ("é\udfff", "parameters.a", "text"),
        (MAX_NUMBER + 1, "parameters.a", "number"),
        (-MAX_NUMBER - 1, "parameters.a", "number"),
        (10**400, "parameters.a", "number"),
        (float("nan"), "parameters.a", "number"),
        (float("inf"), "parameters.a", "number"),
        (1e300, "parameters.a", "number"),
        ([1] * 255, "parameters", "256 values"),
        (["x" * 1024] * (MAX_TOTAL_CHARS // 1024) + ["x"], "parameters", "16384 characters"),
        ({"k" * 129: 1}, "parameters.a", "names"),
        ({"k\0": 1}, "parameters.a", "names"),
        ({"\ud800": 1}, "parameters.a", "names"),
        ([1, {"b": ["\0"]}], "parameters.a[1].b[0]", "NUL"),
        ({"not plain": ["\0"]}, "parameters.a.?[0]", "NUL"),
    ],
)
def test_beyond_bounds(value: JsonValue, path: str, expected: str) -> None:
    found = excess(value)
    assert found.field == path
    assert expected in found.description


def test_too_deep() -> None:
    assert "levels deep" in excess(nested(MAX_DEPTH)).description
    assert "levels deep" in excess(nested(100_000)).description


def test_depth() -> None:
    assert not is_deeper_than(3, nested(3))
    assert is_deeper_than(3, nested(4))
    assert is_deeper_than(3, nested(100_000))
    assert not is_deeper_than(0, "x")
    assert not is_deeper_than(1, [])
