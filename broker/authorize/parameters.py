"""What a scope's JSON Schema says about the parameters that agents send."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Protocol

from jsonschema import Draft202012Validator, ValidationError, validators

from broker.authorize.bounds import find_excess, step
from broker.authorize.regex import compile_regex
from broker.authorize.schema import check_schema
from broker.errors import FieldViolation, ParametersInvalid
from broker.model import JsonObject, JsonValue

MAX_VIOLATIONS: Final = 10

# What was expected, by keyword; {} is the keyword's value in the schema. The
# library's own words repeat what was sent.
_EXPECTED: Final[Mapping[str, str]] = {
    "type": "must be of type {}",
    "enum": "must be one of {}",
    "const": "must be {}",
    "pattern": "must match the pattern {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "uniqueItems": "must not have an item twice",
    "required": "is required",
    "additionalProperties": "is not a known parameter",
    "properties": "must not be given",
}
_MAX_SHOWN: Final = 200


class _Validating(Protocol):
    """What a keyword is given by the library, as far as it is used here."""

    def descend(self, instance: object, schema: object, path: str, schema_path: str) -> Iterator[ValidationError]: ...


def _pattern(validator: _Validating, pattern: str, instance: object, schema: object) -> Iterator[ValidationError]:
    """Match on the linear-time engine; the library's own would backtrack."""
    if isinstance(instance, str) and not compile_regex(pattern).match(instance):
        yield ValidationError("")


def _required(validator: _Validating, names: list[str], instance: object, schema: object) -> Iterator[ValidationError]:
    """Point at each missing name instead of at what misses it."""
    if isinstance(instance, dict):
        yield from (ValidationError("", path=(name,)) for name in names if name not in instance)


def _additional(
    validator: _Validating, further: JsonValue, instance: object, schema: dict[str, JsonValue]
) -> Iterator[ValidationError]:
    """Point at each unknown name instead of at what has it."""
    if further is not False:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, further, instance, schema)
    elif isinstance(instance, dict):
        known = schema.get("properties")
        names = known if isinstance(known, dict) else ()
        yield from (ValidationError("", path=(name,)) for name in instance if name not in names)


def _properties(
    validator: _Validating, properties: dict[str, JsonValue], instance: object, schema: object
) -> Iterator[ValidationError]:
    """Point at the name that must not be given; the library points at what has it."""
    for name, subschema in properties.items():
        if isinstance(instance, dict) and name in instance:
            if subschema is False:
                yield ValidationError("", path=(name,))
            else:
                yield from validator.descend(instance[name], subschema, path=name, schema_path=name)


_Validator = validators.extend(  # type: ignore[no-untyped-call]  # the stubs leave it out
    Draft202012Validator,
    {"pattern": _pattern, "properties": _properties, "required": _required, "additionalProperties": _additional},
)


class ParameterRules:
    """A compiled schema.

    Raises:
        SchemaProblem: when the schema may not be used.
    """

    def __init__(self, schema: JsonObject) -> None:
        check_schema(schema)
        self._validator = _Validator({key: value for key, value in schema.items() if key != "$schema"})
        self._none_will_do = self._validator.is_valid({})

    def check(self, parameters: JsonObject) -> None:
        """Check parameters.

        Raises:
            ParametersInvalid: naming each wrong field and what was expected
                there, never the value.
        """
        if not parameters and self._none_will_do:
            return
        excess = find_excess(parameters)
        if excess is not None:
            raise _invalid((excess,))
        errors = islice(self._validator.iter_errors(dict(parameters)), MAX_VIOLATIONS)
        violations = tuple(map(_violation, errors))
        if violations:
            raise _invalid(violations)


def _violation(error: ValidationError) -> FieldViolation:
    path = "parameters" + "".join(map(step, error.absolute_path))
    keyword = str(error.validator)
    expected = _EXPECTED.get(keyword, f"must satisfy the schema's '{keyword}'")
    return FieldViolation(path, expected.format(_shown(error.validator_value)))


def _shown(value: object) -> str:
    text = ", ".join(map(_shown, value)) if isinstance(value, list) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _invalid(violations: tuple[FieldViolation, ...]) -> ParametersInvalid:
    return ParametersInvalid(
        "; ".join(f"{item.field} {item.description}" for item in violations),
        violations=violations,
    )
