"""Regular expressions in scopes: linear in time, and anchored at both ends.

The admin writes them and agents supply what they are matched with, so that a
backtracking engine would let an agent stop the broker. These run on the engine
behind pydantic (Rust's ``regex``), which has neither look-around nor
back-references and needs time proportional to the text.
"""

from functools import lru_cache
from typing import Annotated, Final

from pydantic import StringConstraints, TypeAdapter, ValidationError

MAX_CHARS: Final = 256


class Regex:
    """One compiled regular expression.

    Raises:
        ValueError: saying what was expected.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARS:
            raise ValueError(f"must be a regular expression of at most {MAX_CHARS} characters")
        _check_anchored(text)
        try:
            self._adapter = TypeAdapter(Annotated[str, StringConstraints(strict=True, pattern=text)])
        except Exception:  # the engine's own error has no public name in pydantic
            raise ValueError(
                "must be a regular expression without look-around and back-references, and of moderate size"
            ) from None

    def match(self, text: str) -> bool:
        """Tell whether the text matches."""
        try:
            self._adapter.validate_python(text)
        except ValidationError:
            return False
        return True


@lru_cache(maxsize=1024)
def compile_regex(text: str) -> Regex:
    """Compile a regular expression, once.

    Raises:
        ValueError: saying what was expected.
    """
    return Regex(text)


def _check_anchored(text: str) -> None:
    """Refuse what matches somewhere in a text, or half of it as ``^main|develop$`` does."""
    depth, in_class, escaped, end = 0, False, False, ""
    for character in text:
        end = "" if escaped or in_class else character
        if escaped or character == "\\":
            escaped = not escaped
        elif in_class or character == "[":
            in_class = character != "]"
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            raise ValueError("must have its alternatives in parentheses, such as ^(main|develop)$")
    if not text.startswith("^") or end != "$":
        raise ValueError("must begin with '^' and end with '$', so that it matches the whole value")
