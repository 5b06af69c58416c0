"""Single fields: what is let in, and what every violation says."""

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import FieldViolation, InvalidArgument
from broker.serve.convert.checks import MAX_DURATION, MAX_LABELS, Checks, is_plain


def passes(checks: Checks) -> bool:
    try:
        checks.done()
    except InvalidArgument:
        return False
    return True


@pytest.mark.parametrize("text", ["plain", "Größe", "家 👨‍👩‍👧", "a\u00a0b", "שלום"])
def test_languages_and_emoji_are_plain(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize(
    "char", ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x9b", "\ud800", "\u2028", "\u202e", "\u2066"]
)
def test_control_surrogates_and_reordering_are_not(char: str) -> None:
    assert not is_plain(f"a{char}b")


@pytest.mark.parametrize(("text", "good"), [("", 0), ("a", 1), ("a" * 10, 1), ("a" * 11, 0), ("  ", 0)])
def test_length_of_text(text: str, good: int) -> None:
    checks = Checks()
    assert checks.text(text, "f", longest=10) == text
    assert passes(checks) == bool(good)


def test_optional_text_may_be_empty() -> None:
    checks = Checks()
    checks.text("", "f", shortest=0, longest=10)
    checks.done()


@pytest.mark.parametrize("name", ["a", "db-readonly", "9", "a" * 63])
def test_scope_names(name: str) -> None:
    checks = Checks()
    assert checks.scope_name(name, "scope") == name
    checks.done()


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "a\n", "a" * 64, "\uff41", "a%2f"])
def test_what_is_no_scope_name(name: str) -> None:
    checks = Checks()
    checks.scope_name(name, "scope")
    assert not passes(checks)


@pytest.mark.parametrize("uri", ["spiffe://example.org/a", "https://issuer.example#sub%20ject", "spiffe://d/*/**"])
def test_agent_uris(uri: str) -> None:
    checks = Checks()
    assert checks.agent_uri(uri, "agent") == uri
    checks.done()


@pytest.mark.parametrize(
    "uri", ["", "agent", "spiffe:", "spiffe://a b", "spiffe://a\n", "spiffe://ä", "x:" + "a" * 2048]
)
def test_what_is_no_agent_uri(uri: str) -> None:
    checks = Checks()
    checks.agent_uri(uri, "agent")
    assert not passes(checks)


def test_identifiers_become_canonical() -> None:
    checks = Checks()
    upper = "0190A6F2-7B1C-7DEF-8123-456789ABCDEF"
    assert checks.identifier(upper, "id") == upper.lower()
    assert checks.optional_identifier("", "request_id") is None
    checks.done()


@pytest.mark.parametrize(
    "text", ["", "x", "0190a6f27b1c7def8123456789abcdef", "0190a6f2-7b1c-7def-8123-456789abcdeg", "\0" * 36]
)
def test_what_is_no_identifier(text: str) -> None:
    checks = Checks()
    checks.identifier(text, "id")
    with pytest.raises(InvalidArgument) as caught:
        checks.done()
    assert caught.value.violations == (FieldViolation("id", "must be a UUID of 36 characters"),)


def test_all_violations_come_together_and_the_first_is_the_message() -> None:
    checks = Checks()
    checks.text("", "spec.purpose", longest=500)
    checks.scope_name("A", "scope")
    with pytest.raises(InvalidArgument) as caught:
        checks.done()
    assert [item.field for item in caught.value.violations] == ["spec.purpose", "scope"]
    assert caught.value.message == "the request is not valid: spec.purpose: must be 1 to 500 characters"
    assert "scope: " in caught.value.detail


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (1, 0, timedelta(seconds=1)),
        (90, 500_000_000, timedelta(seconds=90, milliseconds=500)),
        (5, 999_999_999, timedelta(seconds=5, microseconds=999_999)),
        (3660 * 86400, 0, MAX_DURATION),
    ],
)
def test_durations(seconds: int, nanos: int, expected: timedelta) -> None:
    checks = Checks()
    assert checks.duration(Duration(seconds=seconds, nanos=nanos), "ttl") == expected
    checks.done()


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 0),
        (0, 999_999_999),
        (-1, 0),
        (1, -1),
        (5, 1_000_000_000),
        (5, 2**31 - 1),
        (10**12, 0),
        (-(10**12), 0),
        (2**63 - 1, 999_999_999),
        (-(2**63), -(2**31)),
        (3660 * 86400, 1_000),
    ],
)
def test_nonsense_durations_are_refused(seconds: int, nanos: int) -> None:
    checks = Checks()
    checks.duration(Duration(seconds=seconds, nanos=nanos), "ttl")
    assert not passes(checks)


@given(
    st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 3602),
    st.integers(-(2**31), 2**31 - 1) | st.integers(0, 10**9),
)
def test_any_duration_is_in_bounds_or_refused(seconds: int, nanos: int) -> None:
    checks = Checks()
    found = checks.duration(Duration(seconds=seconds, nanos=nanos), "ttl", longest=timedelta(hours=1))
    assert timedelta(seconds=1) <= found <= timedelta(hours=1)
    if passes(checks):
        assert (found.days * 86400 + found.seconds, found.microseconds) == (seconds, nanos // 1000)


def test_labels() -> None:
    checks = Checks()
    assert checks.labels({"team": "data", "k" * 63: "v" * 255, "empty": ""}, "labels") == {
        "team": "data",
        "k" * 63: "v" * 255,
        "empty": "",
    }
    checks.done()


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ({"": "x"}, "labels.key"),
        ({"k" * 64: "x"}, "labels.key"),
        ({"a\0": "x"}, "labels.key"),
        ({"a": "v" * 256}, "labels.value"),
        ({"a": "\ud800"}, "labels.value"),
        ({str(index): "" for index in range(MAX_LABELS + 1)}, "labels"),
    ],
)
def test_bad_labels(labels: dict[str, str], field: str) -> None:
    checks = Checks()
    checks.labels(labels, "labels")
    with pytest.raises(InvalidArgument) as caught:
        checks.done()
    assert [item.field for item in caught.value.violations] == [field]
