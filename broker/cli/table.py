"""Tables that stay readable at 80 columns: one line per row, long values cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from broker.terminal import printable

GAP = 2
LEAST = 6

Row = TypeVar("Row", bound=Message)


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        title: Its heading.
        cell: The value; escaped when it is shown.
        full: What ``--wide`` shows instead.
        flexible: Whether it may be cut to make room.
        keep_end: Whether the end is what matters when it is cut.
        only_wide: Whether only ``--wide`` shows it.
        only_narrow: Whether ``--wide`` shows it in other columns.
        style: A rich style for the value.
    """

    title: str
    cell: Callable[[Row], str]
    full: Callable[[Row], str] | None = None
    flexible: bool = False
    keep_end: bool = False
    only_wide: bool = False
    only_narrow: bool = False
    style: Callable[[Row], str] | None = None


def render(rows: Sequence[Row], columns: Sequence[Column[Row]], *, wide: bool, width: int) -> list[Text]:
    """Return the table's lines, the heading first.

    Args:
        rows: The messages.
        columns: What is shown of each.
        wide: Show everything, also beyond the width.
        width: Cells of the terminal.
    """
    shown = [column for column in columns if not (column.only_narrow if wide else column.only_wide)]
    cells = [[_cell(column, row, wide) for column in shown] for row in rows]
    natural = [
        max(cell_len(column.title), *(cell_len(line[index]) for line in cells)) for index, column in enumerate(shown)
    ]
    widths = natural if wide else _fit(natural, [column.flexible for column in shown], width)
    lines = [_line([(column.title, "bold") for column in shown], widths)]
    for row, line in zip(rows, cells, strict=True):
        cut = [_cut(value, width, column) for value, width, column in zip(line, widths, shown, strict=True)]
        styles = [column.style(row) if column.style else "" for column in shown]
        lines.append(_line(list(zip(cut, styles, strict=True)), widths))
    return lines


def _cell(column: Column[Row], row: Row, wide: bool) -> str:
    value = column.full if wide and column.full is not None else column.cell
    return printable(value(row)) or "-"


def _fit(natural: Sequence[int], flexible: Sequence[bool], width: int) -> list[int]:
    """Take from the widest flexible column until the line fits."""
    widths = list(natural)
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    while excess > 0:
        candidates = [index for index, may in enumerate(flexible) if may and widths[index] > LEAST]
        if not candidates:
            break
        widths[max(candidates, key=lambda index: widths[index])] -= 1
        excess -= 1
    return widths


def _cut(value: str, width: int, column: Column[Row]) -> str:
    if cell_len(value) <= width:
        return value
    if column.keep_end:
        return "…" + set_cell_size(value[::-1], width - 1)[::-1]
    return set_cell_size(value, width - 1) + "…"


def _line(cells: Sequence[tuple[str, str]], widths: Sequence[int]) -> Text:
    line = Text()
    for index, ((value, style), width) in enumerate(zip(cells, widths, strict=True)):
        line.append(value, style)
        if index < len(cells) - 1:
            line.append(" " * (width - cell_len(value) + GAP))
    return line
