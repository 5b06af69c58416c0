"""Text that must not be lost is made storable."""

import json

from hypothesis import given
from hypothesis import strategies as st

from broker.store.cleaning import clean, clean_json, clean_key
from broker.store.columns import UNSTORABLE

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=10,
)


@given(st.text(st.characters()))
def test_cleaned_text_can_be_stored_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert UNSTORABLE.search(cleaned) is None
    assert clean(cleaned) == cleaned
    if UNSTORABLE.search(text) is None:
        assert cleaned == text


def test_text_is_cut_at_its_bound() -> None:
    assert clean("x" * 8192) == "x" * 8192
    assert clean("x" * 8193) == "x" * 8191 + "…"
    assert len(clean("\x00" * 8192)) == 8192


@given(st.text(st.characters(), max_size=9000))
def test_keys_fit_into_an_index(text: str) -> None:
    assert len(clean_key(text).encode()) <= 2048


def test_keys_are_cut_between_characters() -> None:
    assert clean_key("é" * 1024) == "é" * 1024
    assert clean_key("é" * 1025) == "é" * 1022 + "…"


@given(values)
def test_cleaned_json_is_json(value: object) -> None:
    cleaned = clean_json(value)  # type: ignore[arg-type]  # every JSON value, and NaN
    text = json.dumps(cleaned, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\u0000", "")
    assert json.loads(text) == cleaned
    json.dumps(cleaned, ensure_ascii=False).encode()  # no lone surrogate is left
