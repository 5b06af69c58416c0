"""What a scenario saw, and how it is shown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HEADINGS = ("scenario", "database", "figure", "goal", "seen", "met")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; less is better.

    Attributes:
        name: What was measured, in a few words.
        seen: The number.
        unit: ``s``, ``ms``, ``/s``, ``x`` (a ratio within one run), ``MiB`` or empty for a count.
        goal: The most it may be; None where it only explains another figure.
    """

    name: str
    seen: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within its goal."""
        return self.goal is None or self.seen <= self.goal


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one scenario on one database."""

    scenario: str
    database: str
    figures: tuple[Figure, ...]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that is not exceeded by this share of all (nearest rank).

    Raises:
        ValueError: when there are none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(results: Sequence[Result], *, judged: bool) -> str:
    """Return a table for a terminal. Not judged, goals are left out: small runs say nothing about them."""
    rows = [_HEADINGS]
    for result in results:
        for figure in result.figures:
            has_goal = judged and figure.goal is not None
            goal = f"<= {_shown(figure.goal, figure.unit)}" if has_goal and figure.goal is not None else ""
            met = ("yes" if figure.met else "NO") if has_goal else ""
            seen = _shown(figure.seen, figure.unit)
            rows.append((result.scenario, result.database, figure.name, goal, seen, met))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _shown(value: float, unit: str) -> str:
    digits = 0 if unit == "" or value >= 1000 else 1 if value >= 100 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
