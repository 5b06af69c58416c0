"""Parameters against a scope's schema: what was expected is told, the value never (threats 18, 20, 29)."""

import pytest

from broker.authorize.parameters import MAX_VIOLATIONS, ParameterRules
from broker.authorize.schema import DIALECT
from broker.errors import FieldViolation, ParametersInvalid
from broker.model import JsonObject, JsonValue

CANARY = "s3cr3t-canary"

SCHEMA: JsonObject = {
    "$schema": DIALECT,
    "type": "object",
    "additionalProperties": False,
    "required": ["table"],
    "properties": {
        "table": {"type": "string", "pattern": "^rep_[a-z]+$", "maxLength": 16},
        "limit": {"type": "integer", "minimum": 1, "maximum": 10},
        "mode": {"enum": ["r", 1]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2, "uniqueItems": True},
        "nested": {"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}},
        "never": False,
        "choice": {"anyOf": [{"type": "null"}, {"const": 5}]},
    },
    "$defs": {"tag": {"type": "string", "minLength": 2}},
}


def refusal(parameters: JsonObject, schema: JsonObject = SCHEMA) -> ParametersInvalid:
    with pytest.raises(ParametersInvalid) as caught:
        ParameterRules(schema).check(parameters)
    return caught.value


@pytest.mark.parametrize(
    "parameters",
    [
        {"table": "rep_a"},
        {"table": "rep_a", "limit": 10, "mode": 1, "tags": ["ab", "cd"], "nested": {"x": True, "y": False}},
        {"table": "rep_a", "limit": 2.0, "choice": None},
    ],
)
def test_accepts(parameters: JsonObject) -> None:
    ParameterRules(SCHEMA).check(parameters)


@pytest.mark.parametrize(
    ("more", "path", "expected"),
    [
        ({"table": CANARY}, "parameters.table", 'must match the pattern "^rep_[a-z]+$"'),
        ({"table": "rep_a\n"}, "parameters.table", 'must match the pattern "^rep_[a-z]+$"'),
        ({"table": "rep_abcdefghijklm"}, "parameters.table", "must have at most 16 characters"),
        ({"table": 5}, "parameters.table", 'must be of type "string"'),
        ({"limit": 0}, "parameters.limit", "must be at least 1"),
        ({"limit": 11}, "parameters.limit", "must be at most 10"),
        ({"limit": True}, "parameters.limit", 'must be of type "integer"'),
        ({"limit": 1.5}, "parameters.limit", 'must be of type "integer"'),
        ({"mode": CANARY}, "parameters.mode", 'must be one of "r", 1'),
        ({"mode": True}, "parameters.mode", 'must be one of "r", 1'),
        ({"tags": ["ab", "c"]}, "parameters.tags[1]", "must have at least 2 characters"),
        ({"tags": ["ab", "ab"]}, "parameters.tags", "must not have an item twice"),
        ({"tags": ["ab", "cd", "ef"]}, "parameters.tags", "must have at most 2 items"),
        ({"nested": {}}, "parameters.nested.x", "is required"),
        ({"nested": {"x": CANARY}}, "parameters.nested.x", 'must be of type "boolean"'),
        ({"unknown": CANARY}, "parameters.unknown", "is not a known parameter"),
        ({f"{CANARY} {CANARY}": 1}, "parameters.?", "is not a known parameter"),
        ({"never": CANARY}, "parameters.never", "must not be given"),
        ({"choice": CANARY}, "parameters.choice", "must satisfy the schema's 'anyOf'"),
        ({"table": "x" * 2000}, "parameters.table", "must be text of at most 1024 characters, without NUL"),
        ({"limit": float("nan")}, "parameters.limit", "must be a number between"),
    ],
)
def test_names_what_was_expected_and_not_what_was_sent(more: JsonObject, path: str, expected: str) -> None:
    error = refusal({"table": "rep_a", **more})
    (violation,) = error.violations
    assert violation.field == path
    assert violation.description.startswith(expected)
    assert error.detail == f"{path} {violation.description}"
    assert error.message == ParametersInvalid.message
    assert error.metadata == {}
    assert CANARY not in f"{error.violations} {error.detail} {error} {error!r}"


def test_the_error_holds_no_value_anywhere() -> None:
    error = refusal({"table": CANARY})
    assert error.__cause__ is None
    assert error.__context__ is None


def test_names_every_missing_parameter_once() -> None:
    error = refusal({}, {"type": "object", "required": ["a", "b"]})
    assert error.violations == (
        FieldViolation("parameters.a", "is required"),
        FieldViolation("parameters.b", "is required"),
    )


def test_unknown_parameters_of_a_schema_without_properties() -> None:
    assert refusal({"a": 1}, {"type": "object", "additionalProperties": False}).violations == (
        FieldViolation("parameters.a", "is not a known parameter"),
    )


def test_keywords_for_other_types_do_not_apply() -> None:
    rules = ParameterRules(
        {
            "type": "object",
            "properties": {"a": {"pattern": "^x$", "required": ["b"], "additionalProperties": False}},
        }
    )
    rules.check({"a": 5})
    rules.check({"a": "x"})


def test_long_lists_of_choices_are_cut() -> None:
    choices: list[JsonValue] = [f"choice-{number}" for number in range(100)]
    (violation,) = refusal({"a": 1}, {"type": "object", "properties": {"a": {"enum": choices}}}).violations
    assert violation.description.endswith("…")
    assert len(violation.description) < 300


def test_says_only_so_much() -> None:
    many: dict[str, JsonValue] = {f"p{number}": 1 for number in range(50)}
    assert len(refusal({"table": "rep_a", **many}).violations) == MAX_VIOLATIONS


def test_a_pattern_that_would_backtrack_ends() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a": {"pattern": "^(a|a)*$"}}}
    assert refusal({"a": "a" * 1000 + "!"}, schema).violations[0].field == "parameters.a"
