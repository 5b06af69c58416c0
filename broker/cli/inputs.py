"""Values of options that need reading: times, states, parameters."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import typer
from google.protobuf.descriptor import EnumDescriptor

from broker.cli.times import parse_duration, parse_moment
from broker.cli.views import prefix_of
from broker.model import JsonValue


def duration_option(text: str, option: str) -> timedelta:
    """Read a duration.

    Raises:
        typer.BadParameter: when it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def moment_option(text: str | None, option: str) -> datetime | None:
    """Read ``--since`` and ``--until``.

    Raises:
        typer.BadParameter: when it is no moment.
    """
    if text is None:
        return None
    try:
        return parse_moment(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def enum_option(text: str | None, kind: EnumDescriptor, option: str) -> str | None:
    """Read an enum value by name, in any case, as filters name it: ``ACTIVE``.

    Raises:
        typer.BadParameter: with the names that there are.
    """
    if text is None:
        return None
    prefix = prefix_of(kind)
    names = [value.name.removeprefix(prefix) for value in kind.values if value.number]
    wanted = text.upper().replace("-", "_")
    if wanted not in names:
        raise typer.BadParameter(f"must be one of {', '.join(names).lower()}", param_hint=option)
    return wanted


def pairs_option(texts: Sequence[str], option: str) -> dict[str, JsonValue]:
    """Read ``name=text`` and ``name:=json``, such as ``role=reports`` and ``groups:=["a", "b"]``.

    Raises:
        typer.BadParameter: when one is neither, or a name is given twice.
    """
    found: dict[str, JsonValue] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not mark or not name:
            raise typer.BadParameter(f"{text!r} must be name=text or name:=json", param_hint=option)
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        try:
            found[name] = json.loads(value) if is_json else value
        except ValueError:
            raise typer.BadParameter(f"the value of {name!r} is not JSON", param_hint=option) from None
    return found


def labels_option(texts: Sequence[str], option: str) -> dict[str, str]:
    """Read ``name=text``.

    Raises:
        typer.BadParameter: when one is anything else, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name or name in found:
            raise typer.BadParameter(f"{text!r} must be name=text, each name once", param_hint=option)
        found[name] = value
    return found
