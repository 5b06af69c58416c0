"""Regular expressions of scopes: whole values, in linear time."""

import pytest

from broker.authorize.regex import MAX_CHARS, Regex, compile_regex


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^rep_[a-z]+$", "rep_sales"),
        ("^(main|develop)$", "develop"),
        ("^(?i)a$", "A"),
        (r"^[|]\|[\]|]$", "||]"),
        (r"^a\\$", "a\\"),
        ("^.*sales.*$", "my sales report"),
    ],
)
def test_matches(pattern: str, text: str) -> None:
    assert Regex(pattern).match(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^rep_[a-z]+$", "rep_sales\n"),
        ("^rep_[a-z]+$", "\nrep_sales"),
        ("^rep_[a-z]+$", "REP_SALES"),
        ("^(main|develop)$", "develop-evil"),
        ("^(main|develop)$", "evil-main"),
    ],
)
def test_does_not_match(pattern: str, text: str) -> None:
    assert not Regex(pattern).match(text)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("rep_", "begin with"),
        ("^rep_", "end with"),
        ("rep_$", "begin with"),
        (r"^rep\$", "end with"),
        ("^[a$", "end with"),
        ("^main|develop$", "parentheses"),
        ("^(a)|(b)$", "parentheses"),
        (r"^[a\]]|b$", "parentheses"),
        ("^(a$", "without look-around"),
        ("^(?=a)a$", "without look-around"),
        (r"^(a)\1$", "without look-around"),
        ("^(a{1000}){1000}$", "moderate size"),
        ("^" + "a" * MAX_CHARS + "$", "at most"),
    ],
)
def test_refuses(pattern: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Regex(pattern)


def test_no_value_makes_it_slow() -> None:
    # Exponential on a backtracking engine: the test would not end.
    assert not Regex("^(a+)+$").match("a" * 1024 + "!")


def test_compiles_once() -> None:
    assert compile_regex("^once$") is compile_regex("^once$")
