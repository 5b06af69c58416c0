from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Text

from broker.cli.filters import between, compose, equal, quote
from broker.model import TaskState
from broker.store.filters import choice, moment, parse
from broker.store.filters import text as text_field

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


AGENT = Column("agent", Text)
FIELDS = {"agent": text_field(AGENT), "state": choice(Column("state", Text), TaskState), "time": moment(Column("time"))}
STORABLE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


def values(written: str) -> list[object]:
    """Return the values that the broker reads out of a filter."""
    return [restriction.value for restriction in parse(written, FIELDS)]


@given(STORABLE)
def test_the_broker_reads_the_value_that_was_meant(text: str) -> None:
    assert values(compose(equal("agent", text), "agent != x")) == [text, "x"]


def test_the_broker_reads_states_and_times() -> None:
    written = compose([*equal("state", "DEADLINE_EXCEEDED"), *between("time", SINCE, UNTIL)], None)
    assert values(written) == [TaskState.DEADLINE_EXCEEDED, SINCE, UNTIL]
