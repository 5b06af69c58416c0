"""Which JSON Schemas a scope may have."""

import pytest

from broker.authorize.schema import DIALECT, MAX_DEPTH, MAX_SCHEMAS, SchemaProblem, check_schema
from broker.model import JsonObject, JsonValue


def within(**more: JsonValue) -> dict[str, JsonValue]:
    """Return a schema whose parameter `a` has the given keywords."""
    return {"type": "object", "properties": {"a": more}}


def chain(length: int, last: JsonValue) -> dict[str, JsonValue]:
    """Return definitions that refer to one another in a row."""
    links: dict[str, JsonValue] = {f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in range(length)}
    return {"type": "object", "$defs": {**links, f"d{length}": last}}


def deep(levels: int, innermost: JsonValue = True) -> JsonValue:
    schema = innermost
    for _ in range(levels):
        schema = {"not": schema}
    return schema


CONDITIONAL: dict[str, JsonValue] = {"if": {}, "then": {}, "else": False, "not": {"const": 1}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "$schema": DIALECT},
        {"type": "object", "additionalProperties": False, "required": ["a"], "minProperties": 1},
        within(type="string", pattern="^[a-z]+$", minLength=1, maxLength=10, enum=["a"], const="a"),
        within(type=["integer", "null"], minimum=1, maximum=2, exclusiveMinimum=0, exclusiveMaximum=3, multipleOf=1),
        within(type="array", items={"type": "string"}, prefixItems=[True], minItems=1, uniqueItems=True),
        within(contains={}, minContains=1, maxContains=2, propertyNames={"maxLength": 3}, dependentRequired={"a": []}),
        within(**CONDITIONAL),
        within(allOf=[{}], anyOf=[{}, {}], oneOf=[{}], dependentSchemas={"a": {}}),
        within(title="t", description="d", default=1, examples=[{"format": "x"}], deprecated=True, readOnly=False),
        within(enum=[{"$ref": "https://evil.example"}]),
        {"type": "object", "properties": {"$ref": {"type": "string"}, "format": {}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}},
        {"type": "object", "properties": {"a": {}, "b": {"$ref": "#/properties/a"}}},
        {"type": "object", "allOf": [{}], "properties": {"b": {"$ref": "#/allOf/0"}}},
        {"type": "object", "properties": {"a/b": {}}},
    ],
)
def test_accepts(schema: JsonObject) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "path", "expected"),
    [
        ({}, "type", "'object'"),
        ({"type": "string"}, "type", "'object'"),
        ({"type": ["object"]}, "type", "'object'"),
        ({"type": "object", "required": "a"}, "required", "not valid in JSON Schema"),
        (within(type="strng"), "properties.a.type", "not valid in JSON Schema"),
        (within(minLength="1"), "properties.a.minLength", "not valid in JSON Schema"),
        (within(multipleOf=0), "properties.a.multipleOf", "not valid in JSON Schema"),
        (within(anyOf=[]), "properties.a.anyOf", "not valid in JSON Schema"),
        # what JSON Schema would silently ignore
        (within(maxlength=3), "properties.a.maxlength", "not a keyword"),
        ({"type": "object", "aditionalProperties": False}, "aditionalProperties", "not a keyword"),
        (within(format="uuid"), "properties.a.format", "use 'pattern'"),
        (within(contentEncoding="base64"), "properties.a.contentEncoding", "not a keyword"),
        ({"type": "object", "patternProperties": {}}, "patternProperties", "propertyNames"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties", "not a keyword"),
        ({"type": "object", "allOf": [{"anyOf": [{"x": 1}]}]}, "allOf[0].anyOf[0].x", "not a keyword"),
        # what reaches outside, or changes what the rest means
        ({"type": "object", "$id": "https://evil.example/"}, "$id", "not a keyword"),
        ({"type": "object", "$dynamicRef": "#a"}, "$dynamicRef", "not a keyword"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "$schema", "at the top"),
        (within(**{"$schema": DIALECT}), "properties.a.$schema", "at the top"),
        (within(**{"$ref": "https://evil.example/schema"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "file:///etc/passwd"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "other.json#/a"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "#anchor"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "#/properties/%61"}), "properties.a.$ref", "part of this schema"),
        ({"type": "object", "properties": {"%61": {}, "b": {"$ref": "#/properties/%61"}}}, "properties.b.$ref", "part"),
        (within(**{"$ref": "#"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "#/$defs/none"}), "properties.a.$ref", "part of this schema"),
        (within(**{"$ref": "#/properties"}), "properties.a.$ref", "part of this schema"),
        ({"type": "object", "const": {}, "properties": {"a": {"$ref": "#/const"}}}, "properties.a.$ref", "part of"),
        ({"type": "object", "properties": {"a/b": {}, "c": {"$ref": "#/properties/a/b"}}}, "properties.c.$ref", "part"),
        # what would not end, or not soon
        (within(**{"$ref": "#/properties/a"}), "", "refer to itself"),
        ({"type": "object", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}}, "", "itself"),
        (chain(MAX_DEPTH, {}), "", "nested more than"),
        (chain(2000, {}), "", "nested more than"),
        (within(allOf=[deep(MAX_DEPTH)]), "", "nested more than"),
        (within(allOf=[deep(1000)]), "", "nested more than"),
        (within(anyOf=[{}] * MAX_SCHEMAS), "", "subschemas"),
        (within(pattern="(a+)+"), "properties.a.pattern", "begin with"),
        (within(pattern="^(?=a)$"), "properties.a.pattern", "look-around"),
    ],
)
def test_refuses(schema: JsonObject, path: str, expected: str) -> None:
    with pytest.raises(SchemaProblem) as caught:
        check_schema(schema)
    assert caught.value.violation.field == (f"spec.parameters.{path}" if path else "spec.parameters")
    assert expected in caught.value.violation.description


def test_references_may_not_multiply() -> None:
    multiplying: dict[str, JsonValue] = {
        f"d{index}": {"allOf": [{"$ref": f"#/$defs/d{index + 1}"}] * 4} for index in range(MAX_DEPTH // 2 - 2)
    }
    last = f"d{len(multiplying)}"
    small: JsonObject = {"type": "object", "$defs": {**dict(list(multiplying.items())[-3:]), last: {}}}
    check_schema(small)
    with pytest.raises(SchemaProblem, match="references followed"):
        check_schema({"type": "object", "$defs": {**multiplying, last: {}}})


def test_depth_counts_through_references() -> None:
    half = MAX_DEPTH // 2
    end: JsonValue = {"$ref": "#/$defs/end"}
    check_schema({"type": "object", "$defs": {"end": deep(half - 2)}, "not": deep(half, end)})
    with pytest.raises(SchemaProblem, match="nested more than"):
        check_schema({"type": "object", "$defs": {"end": deep(half - 1)}, "not": deep(half, end)})


def test_a_chain_that_fits_is_accepted() -> None:
    check_schema(chain(MAX_DEPTH - 1, {}))
