from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.filters import between, compose, equal, quote

SINCE = datetime(2026, 1, 31, 12, tzinfo=UTC)
UNTIL = datetime(2026, 2, 1, tzinfo=UTC)


def test_conditions_are_joined_with_and() -> None:
    conditions = [*equal("agent", "spiffe://a/b"), *equal("scope", None), *between("create_time", SINCE, UNTIL)]
    assert compose(conditions, None) == (
        'agent = "spiffe://a/b" AND create_time >= "2026-01-31T12:00:00Z" AND create_time < "2026-02-01T00:00:00Z"'
    )


@pytest.mark.parametrize(
    ("conditions", "raw", "expected"),
    [
        ([], None, ""),
        ([], "  state = ACTIVE ", "state = ACTIVE"),
        (['a = "1"'], "", 'a = "1"'),
        (['a = "1"'], "b = 2", 'a = "1" AND b = 2'),
    ],
)
def test_a_filter_of_the_users_own_is_added(conditions: list[str], raw: str | None, expected: str) -> None:
    assert compose(conditions, raw) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", '"plain"'),
        ('" OR agent != "', r'"\" OR agent != \""'),
        ("back\\slash", r'"back\\slash"'),
        ('\\"', r'"\\\""'),
    ],
)
def test_values_stay_inside_their_quotes(text: str, expected: str) -> None:
    assert quote(text) == expected


@given(st.text())
def test_no_value_ends_its_literal_early(text: str) -> None:
    literal = quote(text)
    inside = literal[1:-1]
    position = 0
    read = ""
    while position < len(inside):
        if inside[position] == "\\":
            position += 1
        else:
            assert inside[position] != '"'
        read += inside[position]
        position += 1
    assert read == text
