"""Patterns over the names of agents: whole path segments, compared exactly.

``*`` stands for one segment and a final ``**`` for one or more; every other
character is literal, case counts, and percent-encoding is not decoded. Where a
name comes from (trust domain, issuer) is always literal. No pattern is ever
turned into a regular expression.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_CHARS: Final = 2048

_SPIFFE: Final = "spiffe://"
_ANY: Final = "*"
_REST: Final = "**"
_UNNAMEABLE: Final = frozenset({"", ".", ".."})

# SPIFFE-ID, sections 2.1 and 2.2.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_SEGMENT = re.compile(r"[A-Za-z0-9._-]+|\*\*?")


@dataclass(frozen=True, slots=True)
class Segments:
    """A pattern over text that ``/`` cuts into segments.

    Attributes:
        fixed: What each of the first segments must be; ``*`` for anything.
        open_ended: Whether one or more segments must follow.
    """

    fixed: tuple[str, ...]
    open_ended: bool

    def match(self, text: str) -> bool:
        """Tell whether the whole text matches; text with an empty or dot segment never does."""
        segments = text.split("/")
        surplus = len(segments) - len(self.fixed)
        if surplus < 1 if self.open_ended else surplus:
            return False
        if not _UNNAMEABLE.isdisjoint(segments):
            return False
        return all(wanted in (_ANY, segment) for wanted, segment in zip(self.fixed, segments, strict=False))


@dataclass(frozen=True, slots=True)
class AgentPattern:
    """A pattern over agent URIs.

    Attributes:
        head: The literal beginning with its separator: ``spiffe://`` and trust
            domain up to the ``/``, or the issuer up to the ``#``.
        tail: What must follow.
    """

    head: str
    tail: Segments

    def match(self, uri: str) -> bool:
        """Tell whether the whole URI matches."""
        return uri.startswith(self.head) and self.tail.match(uri[len(self.head) :])


def parse_segments(text: str) -> Segments:
    """Read a pattern over segments, such as one over OIDC subjects.

    Raises:
        ValueError: saying what was expected.
    """
    if len(text) > MAX_CHARS or not text.isprintable():
        raise ValueError(f"must be at most {MAX_CHARS} printable characters")
    segments = text.split("/")
    if not _UNNAMEABLE.isdisjoint(segments):
        raise ValueError("must have no empty, '.' or '..' segment")
    open_ended = segments[-1] == _REST
    fixed = tuple(segments[:-1] if open_ended else segments)
    if any(_ANY in segment and segment != _ANY for segment in fixed):
        raise ValueError("must use '*' for one whole segment, and '**' as the last segment only")
    return Segments(fixed, open_ended)


def parse_spiffe_pattern(text: str) -> AgentPattern:
    """Read a pattern over SPIFFE IDs.

    Raises:
        ValueError: saying what was expected.
    """
    domain, _, path = text.removeprefix(_SPIFFE).partition("/")
    if not text.startswith(_SPIFFE) or not path:
        raise ValueError("must be a SPIFFE ID pattern with a path, such as spiffe://example.org/agents/*")
    if _TRUST_DOMAIN.fullmatch(domain) is None:
        raise ValueError("must have a literal trust domain of lower-case letters, digits, '.', '-' and '_'")
    tail = parse_segments(path)
    if not all(_SPIFFE_SEGMENT.fullmatch(segment) for segment in tail.fixed):
        raise ValueError("must have segments of letters, digits, '.', '-' and '_' only, as SPIFFE IDs do")
    return AgentPattern(f"{_SPIFFE}{domain}/", tail)


# Locks are matched on every request, by the same few patterns.
@lru_cache(maxsize=1024)
def parse_agent_pattern(text: str) -> AgentPattern:
    """Read a pattern over agent URIs: a SPIFFE ID pattern, or ``issuer#subject-pattern``.

    Raises:
        ValueError: saying what was expected.
    """
    if text.startswith(_SPIFFE):
        return parse_spiffe_pattern(text)
    issuer, separator, subject = text.partition("#")
    if not separator or not issuer or not issuer.isprintable():
        raise ValueError("must be a pattern such as spiffe://example.org/agents/* or https://issuer.example#subject/*")
    if _ANY in issuer:
        raise ValueError("must have a literal issuer before the '#'")
    return AgentPattern(f"{issuer}#", parse_segments(subject))


def check_pattern(pattern: str) -> None:
    """Check a pattern over agent URIs.

    Raises:
        ValueError: saying what was expected.
    """
    parse_agent_pattern(pattern)


def matches_agent(pattern: str, uri: str) -> bool:
    """Tell whether an agent URI matches a pattern.

    For OIDC agents the URI is ``issuer#subject`` as `Identity.uri` has it,
    with the subject percent-encoded; it is not decoded.

    Raises:
        ValueError: when the pattern is not one.
    """
    return parse_agent_pattern(pattern).match(uri)
