"""What a CEL expression refers to, read from its text before it is compiled.

The CEL library tells which identifiers occur, but neither which of them a
macro binds nor which fields are asked for. What is accepted here and is no
valid CEL, the library refuses; what it would accept and is not understood
here, is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# The library's parser and evaluator recurse on the machine's stack; so many
# words and signs fit an eighth of a usual one.
MAX_TOKENS: Final = 1000
MAX_NESTED_MACROS: Final = 2

# What conditions may use; None where the names are not known beforehand.
ROOTS: Final[Mapping[str, frozenset[str] | None]] = {
    "agent": frozenset({"uri", "issuer", "subject", "spiffe_id", "trust_domain", "kind", "claims"}),
    "task": frozenset({"purpose", "labels", "declared_scopes"}),
    "params": None,
    "request": frozenset({"ttl_seconds", "time"}),
}

_MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_WORDS: Final = frozenset({"true", "false", "null", "in"})

_TOKEN = re.compile(
    r"""
      (?P<space> \s+ | //[^\n]* )
    | (?P<text>
        (?: [rR][bB]? | [bB][rR] ) (?: \"\"\".*?\"\"\" | '''.*?''' | "[^"\n]*" | '[^'\n]*' )
      | [bB]? (?: \"\"\"(?:\\.|[^\\])*?\"\"\" | '''(?:\\.|[^\\])*?''' | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
      )
    | (?P<number> 0x[0-9a-fA-F]+[uU]? | [0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[uU]? )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)


_AGENT = re.compile(r"\bagent\b", re.ASCII)
_CLAIMS = re.compile(r"\bclaims\b", re.ASCII)
_AGENT_FIELD = re.compile(r"\bagent\.(?!claims\b)([A-Za-z_]\w*+)(?!\s*\()", re.ASCII)
_CLAIM = re.compile(r"\bagent\.claims\.([A-Za-z_]\w*+)(?!\s*\()", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


_END = _Token("end", "")


@dataclass(frozen=True, slots=True)
class Names:
    """What an expression refers to.

    Attributes:
        fields: Root and field of each reference; the field is empty where the
            root is used as a whole.
        bound: Names that macros bind.
        regexes: The literals given to ``matches``, as written.
    """

    fields: frozenset[tuple[str, str]]
    bound: frozenset[str]
    regexes: frozenset[str]


def read_names(source: str) -> Names:
    """Read what an expression refers to.

    Raises:
        ValueError: when it is too long, or refers to what conditions cannot
            use.
    """
    tokens = [token for token in _tokens(source) if token.kind != "space"]
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"must have at most {MAX_TOKENS} words and signs")
    return _Reader(tokens).read()


@dataclass(frozen=True, slots=True)
class AgentUses:
    """Which fields of the agent, and which of its claims, an expression refers to."""

    fields: frozenset[str]
    claims: frozenset[str]


def read_agent_uses(source: str) -> AgentUses | None:
    """Return what of the agent is enough to evaluate an expression; None for everything.

    Making all claims of a token known to the CEL library costs more than all
    the rest of a decision. This goes by the bare text, strings and comments
    included, so that nothing which the library sees can be overlooked: where
    ``agent`` or ``claims`` stand in any but the plainest form, everything is
    wanted.
    """
    fields, claims = _AGENT_FIELD.findall(source), _CLAIM.findall(source)
    if len(_AGENT.findall(source)) != len(fields) + len(claims) or len(_CLAIMS.findall(source)) != len(claims):
        return None
    return AgentUses(frozenset(fields) | ({"claims"} if claims else set()), frozenset(claims))


def _tokens(source: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(source):
        yield _Token(str(match.lastgroup), match[0])


class _Reader:
    """Goes through the tokens once, knowing in which macros it stands."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        # Room on both sides, so that neighbours can be looked at.
        self._tokens = (_END, _END, *tokens, _END, _END, _END)
        self._open: list[str] = []  # per open bracket, the name its macro binds, or nothing
        self._fields: set[tuple[str, str]] = set()
        self._bound: set[str] = set()
        self._regexes: set[str] = set()

    def read(self) -> Names:
        for index, token in enumerate(self._tokens):
            if token.kind == "name":
                self._name(index)
            elif token.kind == "sign" and token.text in "([{":
                self._open.append(self._binding(index))
            elif token.kind == "sign" and token.text in ")]}" and self._open:
                self._open.pop()
        return Names(frozenset(self._fields), frozenset(self._bound), frozenset(self._regexes))

    def _text(self, index: int) -> str:
        token = self._tokens[index]
        return token.text if token.kind != "text" else ""

    def _binding(self, index: int) -> str:
        """Return the name that the macro whose bracket this is binds, if it is one."""
        variable = self._tokens[index + 1]
        is_macro = self._text(index - 2) == "." and self._text(index - 1) in _MACROS and self._text(index) == "("
        if not is_macro or variable.kind != "name":
            return ""
        if variable.text in ROOTS:
            raise ValueError(f"must not use the name {variable.text!r} for something else")
        if sum(map(bool, self._open)) >= MAX_NESTED_MACROS:
            raise ValueError(f"must not nest macros more than {MAX_NESTED_MACROS} deep")
        self._bound.add(variable.text)
        return variable.text

    def _name(self, index: int) -> None:
        name, called = self._text(index), self._text(index + 1) == "("
        if called and name == "matches":
            self._regex(index)
        if called or self._text(index - 1) == "." or name in _WORDS or name in self._open:
            return
        if name not in ROOTS:
            raise ValueError(f"does not know {name!r}; it can use {', '.join(ROOTS)}")
        self._fields.add((name, self._field(index)))

    def _field(self, index: int) -> str:
        """Return the field that is asked of the root at this place, if one is."""
        root, field = self._text(index), self._tokens[index + 2]
        if self._text(index + 1) != "." or field.kind != "name" or self._text(index + 3) == "(":
            return ""
        known = ROOTS[root]
        if known is not None and field.text not in known:
            raise ValueError(f"does not know {root}.{field.text}; {root} has {', '.join(sorted(known))}")
        return field.text

    def _regex(self, index: int) -> None:
        literal = self._tokens[index + 2]
        if literal.kind != "text" or self._text(index + 3) != ")":
            raise ValueError("must give 'matches' one regular expression in quotes")
        self._regexes.add(literal.text)
