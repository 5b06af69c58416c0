"""Structs: bounded on the way in, exact on the way out."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import FieldViolation, InvalidArgument
from broker.model import JsonValue
from broker.serve.convert.checks import Checks
from broker.serve.convert.structs import MAX_BYTES, MAX_DEPTH, MAX_KEYS, read_struct, write_struct


def struct(values: Mapping[str, Any]) -> Struct:
    """Return a Struct as the protobuf library itself writes it."""
    message = Struct()
    message.update(dict(values))
    return message


def read(message: Struct) -> dict[str, JsonValue]:
    checks = Checks()
    values = read_struct(checks, message, "parameters")
    checks.done()
    return values


def violations(message: Struct) -> tuple[FieldViolation, ...]:
    with pytest.raises(InvalidArgument) as caught:
        read(message)
    return caught.value.violations


def nested(levels: int) -> dict[str, object]:
    return {"a": nested(levels - 1)} if levels > 1 else {"a": 1}


def nested_lists(levels: int) -> object:
    return [nested_lists(levels - 1)] if levels else 1


def test_values_of_every_kind() -> None:
    values = {"n": None, "b": True, "s": "text", "i": 7, "f": 0.5, "l": [1, "x", None], "o": {"k": False}}
    assert read(struct(values)) == values


def test_whole_numbers_become_integers_and_booleans_stay() -> None:
    values = read(struct({"i": 3.0, "zero": -0.0, "b": True, "large": 2.0**53, "larger": 1e300}))
    kinds = {key: type(value) for key, value in values.items()}
    assert kinds == {"i": int, "zero": int, "b": bool, "large": int, "larger": float}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    assert violations(struct({"a": [0, number]})) == (FieldViolation("parameters.a[1]", "must be a finite number"),)


def test_value_without_a_kind_is_refused() -> None:
    message = Struct()
    message.fields["a"].Clear()
    assert violations(message) == (FieldViolation("parameters.a", "must have a value"),)


def test_depth_is_bounded() -> None:
    assert read(struct(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    (violation,) = violations(struct(nested(MAX_DEPTH + 1)))
    assert violation.field == "parameters" + ".a" * MAX_DEPTH
    assert "nested" in violation.description


def test_lists_count_as_depth() -> None:
    assert read(struct({"a": nested_lists(MAX_DEPTH - 1)})) == {"a": nested_lists(MAX_DEPTH - 1)}
    assert "nested" in violations(struct({"a": nested_lists(MAX_DEPTH)}))[0].description


def test_keys_are_counted_over_all_levels() -> None:
    half = {str(index): index for index in range(MAX_KEYS // 2 - 1)}
    assert len(read(struct({"x": half, "y": half}))) == 2
    assert "keys" in violations(struct({"x": half, "y": half, "z": {"one": 1}}))[0].description


def test_size_is_bounded_before_anything_is_read() -> None:
    assert violations(struct({"a": "x" * MAX_BYTES})) == (
        FieldViolation("parameters", f"must be at most {MAX_BYTES} bytes"),
    )


@pytest.mark.parametrize("key", ["", "a\0", "a\n", "\x1b[2J", "a\u202e", "k" * 129])
def test_keys_are_plain_text(key: str) -> None:
    (violation,) = violations(struct({key: 1}))
    assert violation.field == "parameters"
    assert key == "" or key not in violation.description


@pytest.mark.parametrize("text", ["a\0b", "\x1b[2J", "\x85", "\u2028", "\u202e"])
def test_text_has_no_control_characters(text: str) -> None:
    assert violations(struct({"a": text}))[0].field == "parameters.a"


def test_text_may_have_lines() -> None:
    lines = "-----BEGIN\r\n\tREQUEST-----\n"
    assert read(struct({"csr": lines})) == {"csr": lines}


def test_several_violations_come_together() -> None:
    found = violations(struct({"a": "\0", "b": {"c": math.nan}}))
    assert {item.field for item in found} == {"parameters.a", "parameters.b.c"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=5))
def test_writing_keeps_every_value(values: dict[str, JsonValue]) -> None:
    message = Struct.FromString(write_struct(values).SerializeToString())
    assert {key: plain(value) for key, value in message.fields.items()} == values


def plain(value: object) -> object:
    """Read a Value without the code under test."""
    kind = value.WhichOneof("kind")  # type: ignore[attr-defined]  # a Value
    held = getattr(value, kind)
    if kind == "null_value":
        return None
    if kind == "struct_value":
        return {key: plain(item) for key, item in held.fields.items()}
    return [plain(item) for item in held.values] if kind == "list_value" else held


def test_integers_beyond_doubles_are_written_exactly() -> None:
    written = write_struct({"id": 2**53 + 1, "negative": -(2**60)})
    assert written.fields["id"].string_value == "9007199254740993"
    assert written.fields["negative"].string_value == "-1152921504606846976"


def test_empty_containers_are_written_as_such() -> None:
    written = write_struct({"list": [], "object": {}})
    assert written.fields["list"].WhichOneof("kind") == "list_value"
    assert written.fields["object"].WhichOneof("kind") == "struct_value"


def test_what_is_no_json_is_misuse() -> None:
    with pytest.raises(TypeError, match="bytes is no JSON value"):
        write_struct({"a": b"secret"})  # type: ignore[dict-item]
