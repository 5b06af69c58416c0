"""Reading YAML as it looks, and saying what is wrong without repeating values."""

from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.reading import field_path, load_yaml, violations_of

CANARY = "s3cr3t-canary"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("{a: , b: null}", {"a": None, "b": None}),
        ("[true, False, TRUE]", [True, False, True]),
        ("[1, -2, 0, +3]", [1, -2, 0, 3]),
        ("[1.5, -0.25, 1e3, 1.5E-3]", [1.5, -0.25, 1000.0, 0.0015]),
        ("'5'", "5"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("&name {a: 1}", {"a": 1}),
        # what YAML 1.1 would make something else of
        ("[no, yes, on, off, y, N]", ["no", "yes", "on", "off", "y", "N"]),
        ("[1:30, 190:20:30]", ["1:30", "190:20:30"]),
        ("[010, 0x1F, 0o7, 1_000]", ["010", "0x1F", "0o7", "1_000"]),
        ("[2026-01-01, 2026-01-01T00:00:00Z]", ["2026-01-01", "2026-01-01T00:00:00Z"]),
        ("[.inf, .nan, 1e999]", [".inf", ".nan", "1e999"]),
        ("{<<: {a: 1}, =: 2}", {"<<": {"a": 1}, "=": 2}),
        ("9" * 30, "9" * 30),
    ],
)
def test_reads_what_is_written(text: str, value: object) -> None:
    found = load_yaml(text)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: key 'a' is given twice"),
        ("x:\n  'a': 1\n  a: 1\n", "line 3, column 3: key 'a' is given twice"),
        ("- {1: 2}", "line 1, column 4: keys must be text"),
        ("{[a]: 1}", "line 1, column 2: keys must be text"),
        ("{true: 1}", "keys must be text"),
        ("? {a: 1}\n: 2", "keys must be text"),
        ("a: &x 1\nb: *x\n", "line 2, column 4: aliases are not allowed"),
        ("a: *unknown", "aliases are not allowed"),
        ("a: !!python/object/apply:os.system [id]", "tags are not allowed"),
        ("a: !!bool x", "line 1, column 4: tags are not allowed"),
        ("a: !!binary aGk=", "tags are not allowed"),
        ("a: !custom {b: 1}", "tags are not allowed"),
        ("a: ! x", "tags are not allowed"),
        ("!!set {a, b}", "tags are not allowed"),
        ("a: [1, 2", "line 1, column 9: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
        ("a: \0", "holds characters that YAML does not allow"),
        ("[" * 5000, "is nested too deeply"),
    ],
)
def test_refuses(text: str, expected: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        f"url: 'postgresql://user:{CANARY}@db\nother: x",
        f'url: "{CANARY}\\q"',
        f"url: {CANARY}: x",
        f"[{CANARY}",
        f"{CANARY}\nurl: x",
        f"{CANARY}\x01",
        f"a: !{CANARY} x",
    ],
)
def test_errors_repeat_no_value(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(text)
    assert CANARY not in f"{caught.value} {caught.value!r} {caught.value.args}"


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml("a: \ud800")
    assert str(caught.value) == "holds characters that YAML does not allow"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cat(Model):
    kind: Literal["cat"]
    lives: int = 9


class Dog(Model):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]+$")]


class Keeper(Model):
    text: str = ""
    whole: Annotated[int, Field(ge=1, le=5)] = 1
    yes: bool = True
    number: float = 0.0
    things: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    pair: Annotated[tuple[int, int], Field(strict=False)] = (1, 2)
    map: dict[Literal["a", "b"], int] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat(kind="cat")
    inner: Cat = Cat(kind="cat")


@pytest.mark.parametrize(
    ("source", "field", "description"),
    [
        ({"text": 5}, "text", "must be text"),
        ({"whole": "5"}, "whole", "must be a whole number"),
        ({"whole": True}, "whole", "must be a whole number"),
        ({"whole": 0}, "whole", "must be at least 1"),
        ({"whole": 6}, "whole", "must be at most 5"),
        ({"yes": 1}, "yes", "must be true or false"),
        ({"number": "x"}, "number", "must be a valid number"),
        ({"things": []}, "things", "must not be empty"),
        ({"things": [1, 2, 3]}, "things", "must have at most 2 entries"),
        ({"things": 5}, "things", "must be a list"),
        ({"things": ["x"]}, "things[0]", "must be a whole number"),
        ({"pair": 5}, "pair", "must be a list"),
        ({"pair": [1]}, "pair[1]", "is required"),
        ({"map": 5}, "map", "must be a mapping"),
        ({"map": {"c": 1}}, "map.c", "must be 'a' or 'b'"),
        ({"map": {"a": "x"}}, "map.a", "must be a whole number"),
        ({"inner": 5}, "inner", "must be a mapping"),
        ({"inner": {}}, "inner.kind", "is required"),
        ({"inner": {"kind": "dog"}}, "inner.kind", "must be 'cat'"),
        ({"unknown": CANARY}, "unknown", "is not a known key"),
        ({"pet": {}}, "pet", "must have a 'kind'"),
        ({"pet": {"kind": "bird"}}, "pet", "must have as 'kind' one of 'cat', 'dog'"),
        ({"pet": {"kind": "dog"}}, "pet.name", "is required"),
        ({"pet": {"kind": "dog", "name": "a"}}, "pet.name", "must have at least 2 characters"),
        ({"pet": {"kind": "dog", "name": "abcd"}}, "pet.name", "must have at most 3 characters"),
        ({"pet": {"kind": "dog", "name": "AB"}}, "pet.name", "must match ^[a-z]+$"),
    ],
)
def test_what_was_expected_and_where(source: dict[str, object], field: str, description: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Keeper.model_validate(source)
    (violation,) = violations_of(caught.value, source=source)
    assert (violation.field, violation.description) == (field, description)


def test_a_prefix_says_where_the_part_stands() -> None:
    with pytest.raises(ValidationError) as caught:
        Cat.model_validate({})
    assert [item.field for item in violations_of(caught.value, "pets[3]")] == ["pets[3].kind"]


@pytest.mark.parametrize(
    ("prefix", "keys", "path"),
    [
        ("", (), ""),
        ("", ("a", 0, "b"), "a[0].b"),
        ("", (0, "b"), "[0].b"),
        ("spec", ("who", 1, 2), "spec.who[1][2]"),
    ],
)
def test_paths(prefix: str, keys: tuple[str | int, ...], path: str) -> None:
    assert field_path(prefix, keys) == path
