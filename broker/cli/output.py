"""The three forms in which commands answer: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from broker.model import JsonValue

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType

    from broker.cli.table import Column, Row


class Format(StrEnum):
    """How a read command answers."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def console(stderr: bool = False) -> "Console":
    """Return a console that prints text as it is: no markup, no emoji, no guessing of colours."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(*parts: "RenderableType") -> None:
    """Print for people, on standard output."""
    console().print(*parts, soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on standard error, so that it is never part of an answer."""
    console(stderr=True).print(text, style="dim", soft_wrap=True)


def to_json(message: "Message") -> dict[str, JsonValue]:
    """Return a message with every field, named as in the contract (snake_case)."""
    from google.protobuf import json_format

    found: dict[str, JsonValue] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def print_json(value: object) -> None:
    """Print one JSON value, indented. Everything beyond ASCII is escaped."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_json_line(value: object) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")


def print_one(value: object, output: Format, table: Callable[[], None]) -> None:
    """Answer with one thing.

    Args:
        value: What programs get.
        output: The form asked for.
        table: Prints it for people.
    """
    if output is Format.TABLE:
        table()
    elif output is Format.JSON:
        print_json(value)
    else:
        print_json_line(value)


def print_list(
    items: "Iterable[Row]", columns: "Sequence[Column[Row]]", output: Format, *, wide: bool, empty: str
) -> None:
    """Answer with a list of messages.

    Args:
        items: The messages; read one by one for ``jsonl``.
        columns: The table's columns.
        output: The form asked for.
        wide: Whether the table shows everything, however wide.
        empty: What people are told when there is nothing.
    """
    if output is Format.JSONL:
        for item in items:
            print_json_line(to_json(item))
        return
    found = list(items)
    if output is Format.JSON:
        print_json([to_json(item) for item in found])
    elif not found:
        note(empty)
    else:
        from broker.cli.table import render

        target = console()
        for line in render(found, columns, wide=wide, width=target.width):
            target.print(line, soft_wrap=True)
