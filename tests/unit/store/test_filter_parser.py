"""The reader of filters: what it takes, and how it says no."""

from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Integer, Text
from sqlalchemy.dialects import sqlite

from broker.errors import FilterInvalid
from broker.store.columns import Choice, Id, UtcTime
from broker.store.filters import Field, choice, identifier, moment, number, parse, text


class Colour(StrEnum):
    RED = "red"
    DARK_BLUE = "dark_blue"


FIELDS: dict[str, Field] = {
    "name": text(Column("name", Text)),
    "owner": identifier(Column("owner_id", Id)),
    "size": number(Column("size", Integer)),
    "time": moment(Column("made_at", UtcTime)),
    "colour": choice(Column("colour", Choice(Colour)), Colour),
}
AN_ID = "019a0000-0000-7abc-8000-00000000000a"


def meaning(filter_text: str) -> list[tuple[str, list[object]]]:
    """Return each condition as SQL and the values bound to it."""
    compiled = [found.condition.compile(dialect=sqlite.dialect()) for found in parse(filter_text, FIELDS)]
    return [(str(item), list(item.params.values())) for item in compiled]


def value_of(filter_text: str) -> object:
    [(_, [value])] = meaning(filter_text)
    return value


@pytest.mark.parametrize("filter_text", ["", " ", "\n\t\r "])
def test_nothing_is_no_condition(filter_text: str) -> None:
    assert parse(filter_text, FIELDS) == ()
    assert parse(filter_text, {}) == ()


@pytest.mark.parametrize(
    ("operator", "in_sql"),
    [("=", "="), ("!=", "IS NOT"), ("<", "<"), ("<=", "<="), (">", ">"), (">=", ">=")],
)
def test_every_operator(operator: str, in_sql: str) -> None:
    assert meaning(f"size {operator} 5") == [(f"size {in_sql} ?", [5])]
    assert meaning(f"size{operator}5") == [(f"size {in_sql} ?", [5])]


def test_conditions_are_joined_in_order() -> None:
    assert meaning(" name=a  AND\nsize > 1 AND colour = Dark_Blue ") == [
        ("name = ?", ["a"]),
        ("size > ?", [1]),
        ("colour = ?", [Colour.DARK_BLUE]),
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("spiffe://example.org/a-b_c.d", "spiffe://example.org/a-b_c.d"),
        ("https://idp.example:8443/x#user%2Fname~1+2@3$4&5*", "https://idp.example:8443/x#user%2Fname~1+2@3$4&5*"),
        ('""', ""),
        ("''", ""),
        ('"a b"', "a b"),
        ("'say \"hi\"'", 'say "hi"'),
        (r'"say \"hi\" \\ \n"', r'say "hi" \ n'),
        (r"'it\'s'", "it's"),
        ('"AND"', "AND"),
        ("AND", "AND"),
        ('"two\nlines"', "two\nlines"),
        ('"ünïcödé 🦊"', "ünïcödé 🦊"),
    ],
)
def test_text_as_it_is_written(written: str, value: str) -> None:
    assert value_of(f"name = {written}") == value
    assert meaning(f"name = {written} AND size = 1") == [("name = ?", [value]), ("size = ?", [1])]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200))
def test_any_text_survives_quoting(value: str) -> None:
    for quote in ('"', "'"):
        escaped = value.replace("\\", "\\\\").replace(quote, "\\" + quote)
        assert value_of(f"name={quote}{escaped}{quote}") == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ('"2026-01-31T12:00:00+05:30"', datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        ("2026-01-31T12:00:00-01:00", datetime(2026, 1, 31, 13, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5Z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456789Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_are_rfc_3339(written: str, value: datetime) -> None:
    assert value_of(f"time = {written}") == value


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-31",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00",
        '"2026-01-31 12:00:00Z"',
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00+99:00",
        "2026-W05-6T12:00:00Z",
        "20260131T120000Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        '"२०२६-01-31T12:00:00Z"',
        "now",
    ],
)
def test_other_times_are_refused(written: str) -> None:
    with pytest.raises(FilterInvalid, match="RFC 3339"):
        parse(f"time = {written}", FIELDS)


@pytest.mark.parametrize("written", ["-1", "1.5", "0x1", "1e3", '""', "9223372036854775808", "1" * 4000, '"\u0661"'])
def test_other_numbers_are_refused(written: str) -> None:
    with pytest.raises(FilterInvalid, match="whole number"):
        parse(f"size = {written}", FIELDS)


def test_the_largest_number_fits_the_database() -> None:
    assert value_of("size = 9223372036854775807") == 2**63 - 1
    assert isinstance(FIELDS["size"].column.type, BigInteger | Integer)


@pytest.mark.parametrize("written", ["x", f'"{AN_ID}0"', f'"{{{AN_ID[:-2]}}}"', AN_ID.replace("-", ""), '""'])
def test_other_identifiers_are_refused(written: str) -> None:
    with pytest.raises(FilterInvalid, match="UUID"):
        parse(f"owner = {written}", FIELDS)


def test_identifiers_are_found_in_any_case() -> None:
    assert value_of(f"owner = {AN_ID.upper()}") == AN_ID


@pytest.mark.parametrize("written", ["green", '""', '"RED "', "dark-blue", "Colour.RED"])
def test_other_members_are_refused_with_those_there_are(written: str) -> None:
    with pytest.raises(FilterInvalid, match="must be one of RED, DARK_BLUE"):
        parse(f"colour = {written}", FIELDS)


@pytest.mark.parametrize("written", ['"\x00"', '"\ud800"'])
def test_text_that_no_database_holds_is_refused(written: str) -> None:
    with pytest.raises(FilterInvalid, match="NUL"):
        parse(f"name = {written}", FIELDS)


@pytest.mark.parametrize(
    ("filter_text", "place", "expected"),
    [
        ("x = 1", 1, "expected one of the fields name, owner, size, time, colour"),
        ("NAME = a", 1, "expected one of the fields"),
        ("name_ = a", 1, "expected one of the fields"),
        ("(name = a)", 1, "expected one of the fields"),
        ("name", 5, "expected one of = !="),
        ("name a", 6, "expected one of = !="),
        ("name < a", 6, "expected one of = !="),
        ("colour >= red", 8, "expected one of = !="),
        ("owner > x", 7, "expected one of = !="),
        ("size == 1", 7, "expected a value"),
        ("size : 1", 6, "expected one of = != < <= > >="),
        ("name = ", 8, "expected a value"),
        ("name = ü", 8, "expected a value"),
        ('name = "open', 8, "expected a value"),
        (r'name = "open\"', 8, "expected a value"),
        ('name = "a"b', 11, "expected a space or the end"),
        ("name = a(b)", 9, "expected a space or the end"),
        ("size = x", 8, "the value must be a whole number"),
        ("name = a name = b", 10, "expected AND or the end"),
        ("name = a and name = b", 10, "expected AND or the end"),
        ("name = a ANDname = b", 10, "expected AND or the end"),
        ("name = a OR name = b", 10, "expected AND or the end"),
        ("name = a AND", 13, "expected one of the fields"),
        ("name = a AND AND name = b", 14, "expected one of the fields"),
        ("AND name = a", 1, "expected one of the fields"),
    ],
)
def test_mistakes_are_shown_with_their_place(filter_text: str, place: int, expected: str) -> None:
    with pytest.raises(FilterInvalid) as refused:
        parse(filter_text, FIELDS)
    [violation] = refused.value.violations
    assert violation.field == "filter"
    assert violation.description.startswith(f"at character {place}: {expected}")
    assert refused.value.message == f"the filter is not valid: {violation.description}"


def test_a_list_without_fields_says_so() -> None:
    with pytest.raises(FilterInvalid, match="this list takes no filter"):
        parse("name = a", {})


def test_size_is_bounded() -> None:
    longest = f'name = "{"x" * 4087}"'
    assert len(longest) == 4096
    assert len(parse(longest, FIELDS)) == 1
    with pytest.raises(FilterInvalid, match="at most 4096 characters"):
        parse(longest + " ", FIELDS)
    assert len(parse(" AND ".join(["size = 1"] * 20), FIELDS)) == 20
    with pytest.raises(FilterInvalid, match="at most 20 comparisons"):
        parse(" AND ".join(["size = 1"] * 21), FIELDS)


pieces = st.sampled_from(
    ["name", "size", "time", "colour", "AND", "=", "!=", "<", ">=", '"a"', "'b", "\\", "1", " ", "\n", "x", "(", "2026"]
)


@given(st.one_of(st.text(max_size=80), st.lists(pieces, max_size=12).map("".join), st.lists(pieces).map(" ".join)))
@example("name = a AND size = 1")
@example('name = "' + "\\" * 4001)
def test_whatever_is_sent_is_understood_or_refused_by_name(filter_text: str) -> None:
    with suppress(FilterInvalid):
        assert len(parse(filter_text, FIELDS)) == len(meaning(filter_text)) <= 20
