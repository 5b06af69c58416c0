"""Patterns over names: whole segments, everything else literal (threats 5 and 6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.authorize import check_pattern, matches_agent
from broker.authorize.patterns import MAX_CHARS, parse_segments, parse_spiffe_pattern

MATCHING = [
    ("spiffe://example.org/agents/a", "spiffe://example.org/agents/a"),
    ("spiffe://example.org/agents/*", "spiffe://example.org/agents/a"),
    ("spiffe://example.org/*/a", "spiffe://example.org/agents/a"),
    ("spiffe://example.org/**", "spiffe://example.org/agents"),
    ("spiffe://example.org/**", "spiffe://example.org/agents/a/b"),
    ("spiffe://example.org/agents/*/**", "spiffe://example.org/agents/a/b"),
    ("https://issuer.example#repo/*", "https://issuer.example#repo/main"),
    ("https://issuer.example#**", "https://issuer.example#anything"),
    ("https://issuer.example#auth0|1234", "https://issuer.example#auth0|1234"),
    ("https://issuer.example#a[b]?c", "https://issuer.example#a[b]?c"),
    ("https://issuer.example/tenant#x%2Fy", "https://issuer.example/tenant#x%2Fy"),
]

NOT_MATCHING = [
    # another place that the name comes from: prefix, suffix, case, substring
    ("spiffe://example.org/agents/*", "spiffe://example.org.evil/agents/a"),
    ("spiffe://example.org/agents/*", "spiffe://evil.example.org/agents/a"),
    ("spiffe://example.org/agents/*", "spiffe://EXAMPLE.org/agents/a"),
    ("spiffe://example.org/agents/*", "https://evil#spiffe://example.org/agents/a"),
    ("https://issuer.example#repo/*", "https://issuer.example.evil#repo/main"),
    ("https://issuer.example#repo/*", "https://issuer.example/#repo/main"),
    ("https://issuer.example#repo/*", "https://issuer.exampl#repo/main"),
    ("https://issuer.example#repo/*", "https://ISSUER.example#repo/main"),
    ("https://issuer.example#repo/*", "spiffe://issuer.example/repo/main"),
    # `*` is one segment, `**` at least one
    ("spiffe://example.org/agents/*", "spiffe://example.org/agents"),
    ("spiffe://example.org/agents/*", "spiffe://example.org/agents/"),
    ("spiffe://example.org/agents/*", "spiffe://example.org/agents/a/b"),
    ("spiffe://example.org/agents/**", "spiffe://example.org/agents"),
    ("spiffe://example.org/agents/**", "spiffe://example.org/agents/"),
    ("spiffe://example.org/agents/**", "spiffe://example.org/agents/a//b"),
    ("spiffe://example.org/agents/**", "spiffe://example.org/agents/a/../b"),
    ("spiffe://example.org/agents/*", "spiffe://example.org/agents/."),
    ("https://issuer.example#repo/*", "https://issuer.example#repo/.."),
    # literal characters, whole text, case
    ("spiffe://example.org/agents/a", "spiffe://example.org/agents/A"),
    ("spiffe://example.org/agents/a", "spiffe://example.org/agents/ab"),
    ("spiffe://example.org/agents/a", "spiffe://example.org/agents/a\n"),
    ("spiffe://example.org/a.b/c", "spiffe://example.org/axb/c"),
    ("https://issuer.example#main|develop", "https://issuer.example#main"),
    ("https://issuer.example#main|develop", "https://issuer.example#develop"),
    ("https://issuer.example#[a-z]", "https://issuer.example#b"),
    ("https://issuer.example#a?", "https://issuer.example#a"),
    # percent-encoding is not decoded
    ("https://issuer.example#a/b", "https://issuer.example#a%2Fb"),
    ("https://issuer.example#a/*", "https://issuer.example#a%2Fb"),
]

REFUSED = [
    "",
    "*",
    "**",
    "agents/*",
    "spiffe://example.org",
    "spiffe://example.org/",
    "spiffe://*/agents/a",
    "spiffe://*.example.org/agents/a",
    "spiffe://Example.org/agents/a",
    "spiffe:///agents/a",
    "spiffe://example.org:443/agents",
    "SPIFFE://example.org/agents/a",
    "spiffe://example.org/agents//a",
    "spiffe://example.org/agents/",
    "spiffe://example.org/./a",
    "spiffe://example.org/../a",
    "spiffe://example.org/agents/a*",
    "spiffe://example.org/**/a",
    "spiffe://example.org/***",
    "spiffe://example.org/main|develop",
    "spiffe://example.org/[ab]",
    "spiffe://example.org/a?",
    "spiffe://example.org/a%2Fb",
    "spiffe://example.org/a#b",
    "spiffe://example.org/аgents",  # noqa: RUF001 - a Cyrillic letter is the point
    "https://issuer.example",
    "https://issuer.example/*",
    "https://*#a",
    "#a",
    "https://issuer.example#",
    "https://issuer.example#a//b",
    "https://issuer.example#a/../b",
    "https://issuer.example#/a",
    "https://issuer.example#a*b",
    "https://issuer.example#a\0b",
    "https://issuer.example\n#a",
    "https://issuer.example#" + "a" * (MAX_CHARS + 1),
]


@pytest.mark.parametrize(("pattern", "uri"), MATCHING)
def test_matches(pattern: str, uri: str) -> None:
    check_pattern(pattern)
    assert matches_agent(pattern, uri)


@pytest.mark.parametrize(("pattern", "uri"), NOT_MATCHING)
def test_does_not_match(pattern: str, uri: str) -> None:
    check_pattern(pattern)
    assert not matches_agent(pattern, uri)


@pytest.mark.parametrize("pattern", REFUSED)
def test_refuses_patterns_that_cannot_mean_what_they_say(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        check_pattern(pattern)
    with pytest.raises(ValueError, match=r"^must "):
        matches_agent(pattern, pattern)


def test_a_spiffe_pattern_is_no_issuer_with_a_subject() -> None:
    with pytest.raises(ValueError, match="SPIFFE ID pattern"):
        parse_spiffe_pattern("https://issuer.example#repo/*")


SEGMENT = st.sampled_from(["a", "b", "A", ".", "..", "", "*", "**", "a|b", "%2e", "é"])


def slowly(pattern: list[str], segments: list[str]) -> bool:
    """Match by trying everything that a pattern may stand for, one segment after the other."""
    if not pattern:
        return not segments
    if pattern == ["**"]:
        return len(segments) > 0 and all(segment not in ("", ".", "..") for segment in segments)
    if not segments or segments[0] in ("", ".", ".."):
        return False
    return pattern[0] in ("*", segments[0]) and slowly(pattern[1:], segments[1:])


@given(st.lists(SEGMENT, min_size=1, max_size=5), st.lists(SEGMENT, min_size=1, max_size=6))
def test_agrees_with_a_slow_reference(pattern: list[str], segments: list[str]) -> None:
    try:
        compiled = parse_segments("/".join(pattern))
    except ValueError:
        allowed = all(item not in ("", ".", "..") for item in pattern) and "**" not in pattern[:-1]
        assert not allowed
        return
    assert compiled.match("/".join(segments)) == slowly(pattern, segments)


@given(st.text(alphabet="ab.*/|#%\n\0é", max_size=12))
def test_a_name_without_wildcards_matches_itself_alone(text: str) -> None:
    try:
        pattern = parse_segments(text)
    except ValueError:
        return
    if "*" not in text:
        assert pattern.match(text)
        assert not pattern.match(text + "/a")
        assert not pattern.match("a/" + text)
        assert not pattern.match(text + "\n")
