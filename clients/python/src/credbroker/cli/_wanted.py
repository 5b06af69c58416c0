"""What the command line wants of each scope."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from credbroker._wire import to_struct

_DURATION = re.compile(r"([0-9]{1,6})(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Wanted:
    """One credential asked for on the command line."""

    scope: str
    parameters: dict[str, object] = field(default_factory=dict)
    ttl: timedelta | None = None
    prefix: str | None = None
    names: dict[str, str] = field(default_factory=dict)


class ForScope(argparse.Action):
    """An option that belongs to the scope before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        wanted: list[Wanted] = namespace.wanted
        if not wanted:
            parser.error(f"{option_string} goes after the --scope it belongs to")
        try:
            self.apply(wanted[-1], str(values))
        except (ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"{option_string}: {error}")

    def apply(self, wanted: Wanted, text: str) -> None:
        """Put the option's value into what is wanted."""
        raise NotImplementedError


class ScopeOption(ForScope):
    """``--scope NAME``: begins another credential."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        namespace.wanted.append(Wanted(str(values)))


class OneScope(ForScope):
    """The scope as an argument of its own, wherever it stands."""

    def apply(self, wanted: Wanted, text: str) -> None:
        wanted.scope = text


class ParamOption(ForScope):
    """``--param NAME=TEXT`` or ``NAME:=JSON``."""

    def apply(self, wanted: Wanted, text: str) -> None:
        name, value = _parameter(text)
        if name in wanted.parameters:
            raise ValueError(f"{name} is given twice")
        to_struct({name: value})
        wanted.parameters[name] = value


class TtlOption(ForScope):
    """``--ttl TIME``."""

    def apply(self, wanted: Wanted, text: str) -> None:
        wanted.ttl = duration(text)


class PrefixOption(ForScope):
    """``--prefix NAME``."""

    def apply(self, wanted: Wanted, text: str) -> None:
        wanted.prefix = _variable(text).rstrip("_")


class EnvOption(ForScope):
    """``--env NAME=KEY``."""

    def apply(self, wanted: Wanted, text: str) -> None:
        name, key = pair(text)
        wanted.names[_variable(name)] = key


def _parameter(text: str) -> tuple[str, object]:
    name, value = pair(text)
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError:
        raise ValueError(f"{name}= must be followed by JSON") from None


def pair(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def duration(text: str) -> timedelta:
    """Read a duration such as ``90s``, ``15m`` or ``2h``."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError("must be a duration such as 90s, 15m or 2h")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("must be a name of letters, digits and underscores")
    return text
