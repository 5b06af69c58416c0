"""Python values as messages and back."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from credbroker._requests import make_spec
from credbroker._wire import from_struct, made_at, to_duration, to_struct
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.broker import new_id

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_sent_comes_back(values: dict[str, object]) -> None:
    assert from_struct(to_struct(values)) == values


def test_whole_numbers_are_int_and_others_are_not() -> None:
    back = from_struct(to_struct({"a": 5432, "b": 1.5, "c": 1e300, "d": True}))
    assert [type(back[name]) for name in "abcd"] == [int, float, float, bool]


def test_other_sequences_and_mappings() -> None:
    assert from_struct(to_struct({"a": ("x", MappingProxyType({"y": None}))})) == {"a": ["x", {"y": None}]}


def test_a_value_without_a_kind_is_null() -> None:
    assert from_struct(Struct(fields={"a": Value()})) == {"a": None}


@pytest.mark.parametrize(
    ("values", "error", "where"),
    [
        ({"a": 2**53 + 1}, ValueError, "a: whole numbers"),
        ({"a": {"b": [float("nan")]}}, ValueError, r"a\.b\[0\]: must be finite"),
        ({"a": b"x"}, TypeError, "a: must be a JSON value, not bytes"),
        ({1: "x"}, TypeError, "names must be text, not int"),
    ],
)
def test_what_cannot_be_sent(values: dict[str, object], error: type[Exception], where: str) -> None:
    with pytest.raises(error, match=where):
        to_struct(values)


@given(st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_durations(lasting: timedelta) -> None:
    message = to_duration(lasting.total_seconds())
    assert message is not None
    assert abs(message.ToTimedelta() - lasting) <= timedelta(microseconds=1)
    assert 0 <= message.nanos < 10**9


def test_no_duration() -> None:
    assert to_duration(None) is None


@given(st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_when_an_identifier_was_made(moment: datetime) -> None:
    found = made_at(new_id(moment))
    assert found is not None
    assert timedelta(0) <= found - moment <= timedelta(milliseconds=1, microseconds=1)


@pytest.mark.parametrize("identifier", ["", "no uuid", "936da01f-9abd-4d9d-80c7-02af85c822a8"])
def test_other_identifiers_say_nothing(identifier: str) -> None:
    assert made_at(identifier) is None


def test_one_name_is_not_several_scopes() -> None:
    with pytest.raises(TypeError, match="several names"):
        make_spec("p", None, "reports-db", None, None)


def test_a_task_as_it_is_described() -> None:
    spec = make_spec("p", {"a": "b"}, ("x", "y"), timedelta(minutes=1), 2.5)
    assert (spec.purpose, dict(spec.labels), list(spec.declared_scopes)) == ("p", {"a": "b"}, ["x", "y"])
    assert spec.timeout.ToTimedelta() == timedelta(minutes=1)
    assert spec.heartbeat_interval.ToTimedelta() == timedelta(seconds=2.5)
    bare = make_spec("p", None, (), None, None)
    assert not bare.HasField("timeout")
    assert not bare.HasField("heartbeat_interval")
