import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.terminal import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spiffe://example.org/a", "spiffe://example.org/a"),
        ("Zürich 東京", "Zürich 東京"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("abc\u202egnp", r"abc\u202egnp"),
        ("a\u200bb\u2028c", r"a\u200bb\u2028c"),
        ("a\u00a0b", r"a\xa0b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_might_act_on_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_but_letters_marks_numbers_punctuation_symbols_and_spaces_is_left(text: str) -> None:
    shown = printable(text)
    assert all(char == " " or unicodedata.category(char)[0] in "LMNPS" for char in shown)


def test_only_line_feeds_end_lines() -> None:
    assert printable_lines("a\nb\r\nc\x0bd") == ["a", r"b\r", r"c\x0bd"]
