"""Which JSON Schemas (2020-12) a scope may have for its parameters.

A closed list of keywords: JSON Schema ignores what it does not know, so that
one misspelt keyword would let everything pass. Keywords that reach outside of
the schema, that nothing checks, or whose cost is out of proportion are not on
it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError

from broker.authorize.bounds import is_deeper_than
from broker.authorize.regex import compile_regex
from broker.errors import FieldViolation
from broker.model import JsonObject, JsonValue
from broker.reading import field_path

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_DEPTH: Final = 16
MAX_SCHEMAS: Final = 500

_ONE = frozenset({"additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else"})
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "$defs", "dependentSchemas"})
_PLAIN = frozenset(
    {
        *("$ref", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("type", "enum", "const", "pattern", "minLength", "maxLength"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
        *("required", "dependentRequired", "minProperties", "maxProperties"),
    }
)
_INSTEAD: Final = {
    "format": "is not checked by the broker; use 'pattern'",
    "patternProperties": "is not supported; use 'propertyNames' with 'additionalProperties'",
    "$schema": f"must stand at the top, and be {DIALECT}",
}
_REF = re.compile(r"#(/[A-Za-z0-9$_.-]+)+")

_KEYWORDS = _ONE | _LIST | _NAMED | _PLAIN

_Keys: TypeAlias = "tuple[str | int, ...]"


class SchemaProblem(ValueError):
    """A schema that may not be used.

    Attributes:
        violation: Where, within the schema, and what was expected.
    """

    def __init__(self, keys: _Keys, expected: str) -> None:
        super().__init__(expected)
        self.violation = FieldViolation(field_path("spec.parameters", keys), expected)


def check_schema(schema: JsonObject) -> None:
    """Check a scope's schema.

    Raises:
        SchemaProblem: for the first thing that is wrong.
    """
    if schema.get("type") != "object":
        raise SchemaProblem(("type",), "must be 'object'")
    if is_deeper_than(2 * MAX_DEPTH, dict(schema)):
        raise SchemaProblem((), f"must not be nested more than {MAX_DEPTH} schemas deep")
    try:
        # Without format checks: they would try Python's regular expressions.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        raise SchemaProblem(tuple(error.absolute_path), f"is not valid in JSON Schema: {error.message[:200]}") from None
    body = {key: value for key, value in schema.items() if (key, value) != ("$schema", DIALECT)}
    nodes = {_pointer(node.keys): node for node in _nodes(body, ())}
    _Expansion(nodes).measure("#", 0)


@dataclass(frozen=True, slots=True)
class _Node:
    """One subschema, and those that are applied as parts of it.

    Attributes:
        keys: Where it stands.
        parts: Pointers of subschemas, and of what ``$ref`` names.
    """

    keys: _Keys
    parts: tuple[str, ...]


def _nodes(schema: JsonValue, keys: _Keys) -> Iterator[_Node]:
    """Yield a subschema and all within it, having checked the keywords of each."""
    if not isinstance(schema, dict):  # true or false
        yield _Node(keys, ())
        return
    inner: list[_Keys] = []
    for keyword, value in schema.items():
        _check_keyword(keyword, value, (*keys, keyword))
        for more, subschema in _subschemas(keyword, value):
            inner.append((*keys, keyword, *more))
            yield from _nodes(subschema, inner[-1])
    reference = schema.get("$ref")
    referred = (reference,) if isinstance(reference, str) else ()
    yield _Node(keys, (*map(_pointer, inner), *referred))


def _subschemas(keyword: str, value: JsonValue) -> Iterator[tuple[_Keys, JsonValue]]:
    if keyword in _ONE:
        yield (), value
    elif keyword in _LIST and isinstance(value, list):
        yield from (((index,), item) for index, item in enumerate(value))
    elif keyword in _NAMED and isinstance(value, dict):
        yield from (((name,), item) for name, item in value.items())


def _check_keyword(keyword: str, value: JsonValue, keys: _Keys) -> None:
    if keyword not in _KEYWORDS:
        raise SchemaProblem(keys, _INSTEAD.get(keyword, "is not a keyword that scopes can use"))
    if keyword == "$ref" and _REF.fullmatch(str(value)) is None:
        raise SchemaProblem(keys, "must refer to a part of this schema, such as #/$defs/name")
    if keyword == "pattern":
        try:
            compile_regex(str(value))
        except ValueError as error:
            raise SchemaProblem(keys, str(error)) from None


def _pointer(keys: _Keys) -> str:
    """Return a JSON Pointer (RFC 6901) as a URI fragment has it."""
    return "#" + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


class _Expansion:
    """Measures a schema with its references followed: they must end, and not multiply."""

    def __init__(self, nodes: Mapping[str, _Node]) -> None:
        self._nodes = nodes
        self._known: dict[str, tuple[int, int]] = {}

    def measure(self, pointer: str, depth: int) -> tuple[int, int]:
        """Return how many subschemas there are from here on, and how deep they are nested.

        A schema that refers to itself has no depth, hence is refused as too deep.
        """
        size, height = self._known.get(pointer, (1, 0))
        if depth + height > MAX_DEPTH:
            raise SchemaProblem((), f"must not be nested more than {MAX_DEPTH} schemas deep, nor refer to itself")
        if pointer in self._known:
            return size, height
        node = self._nodes[pointer]
        for part in node.parts:
            if part not in self._nodes:
                raise SchemaProblem((*node.keys, "$ref"), "must refer to a part of this schema, such as #/$defs/name")
            inner_size, inner_height = self.measure(part, depth + 1)
            size, height = size + inner_size, max(height, inner_height + 1)
        if size > MAX_SCHEMAS:
            raise SchemaProblem((), f"must have at most {MAX_SCHEMAS} subschemas, with references followed")
        self._known[pointer] = size, height
        return size, height
