"""Conditions: the CEL expressions of ``spec.when``, compiled once."""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Final

# The package imports its command line, with the toolkits of a terminal: 9 MB
# and 0.1 s that a server has no use for.
sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))

import cel  # noqa: E402 - after the line above

from broker.authorize.expression import ROOTS, Names, read_agent_uses, read_names  # noqa: E402 - after the line above
from broker.authorize.regex import compile_regex  # noqa: E402 - after the line above
from broker.errors import ScopeDenied  # noqa: E402 - after the line above

# What the library provides; a misspelt function would otherwise fail, hence
# refuse, only when an agent asks.
_FUNCTIONS: Final = frozenset(
    {
        *("size", "contains", "startsWith", "endsWith", "matches"),
        *("string", "bytes", "int", "uint", "double", "timestamp", "duration"),
        *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
    }
)
_MAX_SHOWN: Final = 200


class Condition:
    """One compiled condition.

    Attributes:
        roots: Which of the roots it refers to.
        agent: What of the agent it refers to; None for everything.
        needs_request: Whether it depends on the parameters or the time to
            live, which nobody knows before a credential is asked for.

    Raises:
        ValueError: saying what was expected.
    """

    def __init__(self, source: str) -> None:
        names = read_names(source)
        self._program = _compile(source)
        self.roots = _check_names(self._program, names)
        self.agent = read_agent_uses(source)
        asked = {field for root, field in names.fields if root == "request"}
        self.needs_request = "params" in self.roots or not asked <= {"time"}
        for literal in names.regexes:
            _check_regex(literal)

    def check(self, values: Mapping[str, object]) -> None:
        """Evaluate the condition.

        Args:
            values: One value for each of ``roots``.

        Raises:
            ScopeDenied: unless the result is exactly true.
        """
        try:
            result = self._program.execute(dict(values))
        except Exception as error:
            shown = str(error)[:_MAX_SHOWN]
            raise ScopeDenied(f"the condition failed: {type(error).__name__}: {shown}") from None
        if result is not True:
            raise ScopeDenied("the condition is not true")


def _compile(source: str) -> cel.Program:
    try:
        return cel.compile(source)
    except ValueError as error:
        # "… ERROR: <input>:LINE:COLUMN: what is wrong expecting {every token there is}", then a drawing of the place.
        problem = str(error).partition("<input>:")[2].partition("\n")[0].partition(" expecting ")[0]
        raise ValueError(f"must be a CEL expression; at {problem[:_MAX_SHOWN]}") from None


def _check_names(program: cel.Program, names: Names) -> frozenset[str]:
    """Return the roots that are used, having checked with the library that there is nothing else."""
    used = frozenset(program.variables()) - names.bound
    if not used <= ROOTS.keys():
        raise ValueError(f"does not know {min(used - ROOTS.keys())!r}; it can use {', '.join(ROOTS)}")
    unknown = {name for name in program.functions() if name.isidentifier()} - _FUNCTIONS
    if unknown:
        raise ValueError(f"does not know the function {min(unknown)!r}")
    return used


def _check_regex(literal: str) -> None:
    text = _compile(literal).execute()
    if not isinstance(text, str):
        raise ValueError("must give 'matches' a regular expression that is text")
    try:
        compile_regex(text)
    except ValueError as error:
        raise ValueError(f"gives 'matches' what {error}") from None
