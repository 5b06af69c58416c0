"""Reading what people write, documents and configuration, and saying what is wrong with it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import yaml
from pydantic import ValidationError

from broker.errors import FieldViolation

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][-+]?[0-9]{1,2})?\Z")


class _Loader(yaml.SafeLoader):
    """Reads the JSON-like core of YAML 1.2 alone, and refuses what hides or repeats values.

    What PyYAML would read otherwise stays text: ``no`` is a country, ``1:30``
    no number of seconds, ``010`` not eight, and a date not an object.
    """

    yaml_implicit_resolvers = {
        **{first: [("tag:yaml.org,2002:null", _NULL)] for first in ("", "~", "n", "N")},
        **{first: [("tag:yaml.org,2002:bool", _BOOL)] for first in "tTfF"},
        **{first: [("tag:yaml.org,2002:int", _INT), ("tag:yaml.org,2002:float", _FLOAT)] for first in "-+0123456789"},
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if isinstance(event, yaml.AliasEvent):
            raise _problem("aliases are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _problem("tags are not allowed", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _problem("keys must be text", key_node)
            if key in seen:
                raise _problem(f"key {key!r} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _problem(text: str, at: yaml.Event | yaml.Node) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=at.start_mark)  # type: ignore[arg-type]  # never libyaml's


def load_yaml(text: str) -> object:
    """Read one YAML document, refusing duplicate keys, aliases and tags.

    Raises:
        yaml.YAMLError: when it cannot be read, with the place in its text but
            none of its values, which may be secrets.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise yaml.YAMLError(f"{where}{error.problem}") from None
    except yaml.YAMLError:
        raise yaml.YAMLError("holds characters that YAML does not allow") from None
    except RecursionError:
        raise yaml.YAMLError("is nested too deeply") from None


# What was expected, by pydantic's name of the error; {} are facts of its context.
_EXPECTED: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a known key",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_not_found": "must have a {discriminator}",
    "union_tag_invalid": "must have as {discriminator} one of {expected_tags}",
}


def violations_of(error: ValidationError, prefix: str = "", source: object = None) -> tuple[FieldViolation, ...]:
    """Return what a pydantic validation found, as paths and what was expected.

    Args:
        error: What was found.
        prefix: Path of what was validated.
        source: What was validated; without it, paths name the variants of
            unions as if they were keys.
    """
    found = [
        (item["type"], FieldViolation(field_path(prefix, _keys(item["loc"], source)), _expected(item["type"], item)))
        for item in error.errors(include_url=False, include_input=False)
    ]
    # A list is also called too short when it has entries and all are wrong.
    return tuple(
        violation
        for kind, violation in found
        if kind != "too_short" or not any(other.field.startswith(f"{violation.field}[") for _, other in found)
    )


def field_path(prefix: str, keys: Iterable[str | int]) -> str:
    """Return a path such as ``spec.who[0].claims``."""
    path = prefix
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else key
    return path


def _keys(location: tuple[str | int, ...], source: object) -> Iterator[str | int]:
    """Leave out of a location what is no key: pydantic's marks of unions and of wrong keys."""
    value = source
    for index, key in enumerate(location):
        is_last = index == len(location) - 1
        if key == "[key]" or (isinstance(value, dict) and key not in value and not is_last):
            continue
        yield key
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        value = inner.get(key) if isinstance(inner, dict) else None


def _expected(kind: str, item: Mapping[str, object]) -> str:
    context = item.get("ctx")
    facts = context if isinstance(context, dict) else {}
    if facts.get("min_length") == 1:
        return "must not be empty"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format_map(facts)
    return str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
