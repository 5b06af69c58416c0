"""What a scenario saw, and how it is shown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HEADINGS = ("scenario", "database", "workers", "figure", "goal", "seen", "met")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured, in a few words.
        seen: The number.
        unit: ``s``, ``ms``, ``/s``, ``x`` (a ratio within one run), ``KiB``, ``MiB`` or empty for a count.
        goal: The most it may be; None where it only explains another figure.
        at_least: The least it may be, where more is better.
    """

    name: str
    seen: float
    unit: str
    goal: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within its goals."""
        return (self.goal is None or self.seen <= self.goal) and (self.at_least is None or self.seen >= self.at_least)

    @property
    def wanted(self) -> str:
        """Its goal, for people; empty when there is none."""
        parts = [
            f"{sign} {shown(bound, self.unit)}"
            for sign, bound in (("<=", self.goal), (">=", self.at_least))
            if bound is not None
        ]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Span:
    """What one kind of load did in all of its rounds together.

    Attributes:
        side: ``broker`` or ``direct``.
        workload: What was done.
        callers: How many at once.
        done: How many credentials were got.
        seconds: How long it took.
        waits: Milliseconds that one took to get, at 50, 95 and 99 %.
        ends: The same of the ends of tasks; empty where none ended.
        cpu: Milliseconds of processor time for one credential, by process.
        rates: Credentials a second in each round.
    """

    side: str
    workload: str
    callers: int
    done: int
    seconds: float
    waits: tuple[float, ...]
    ends: tuple[float, ...]
    cpu: Mapping[str, float]
    rates: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Credentials a second."""
        return self.done / self.seconds


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one scenario on one database, with one number of workers."""

    scenario: str
    database: str
    workers: int
    figures: tuple[Figure, ...]
    spans: tuple[Span, ...] = ()


def result_of(document: Mapping[str, Any]) -> Result:
    """Return a result as it was written to JSON."""
    return Result(
        document["scenario"],
        document["database"],
        document["workers"],
        tuple(Figure(**figure) for figure in document["figures"]),
        tuple(Span(**span) for span in document["spans"]),
    )


def against(name: str, span: Span, direct: Span, *, at_least: float | None = None) -> list[Figure]:
    """Return how many times as many credentials a second one side got as the other.

    Where they took turns more often than twice, also of the rounds in which
    that was least and most: how far the machine let them differ.
    """
    figures = [Figure(name, span.rate / direct.rate, "x", at_least=at_least)]
    rounds = [one / other for one, other in zip(span.rates, direct.rates, strict=True)]
    if len(rounds) > 2:
        figures += [Figure(f"{name}, least of {len(rounds)} rounds", min(rounds), "x")]
        figures += [Figure(f"{name}, most of {len(rounds)} rounds", max(rounds), "x")]
    return figures


def percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return the median, p95 and p99 in milliseconds of values in seconds; nothing of none."""
    return tuple(percentile(values, share) * 1000 for share in (0.5, 0.95, 0.99)) if values else ()


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
            wanted = figure.wanted if judged else ""
            met = ("yes" if figure.met else "NO") if wanted else ""
            seen = shown(figure.seen, figure.unit)
            rows.append((result.scenario, result.database, str(result.workers), figure.name, wanted, seen, met))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def spans_table(result: Result) -> str:
    """Return what each kind of load did, for a terminal."""
    lines = [f"{result.scenario} on {result.database}, workers: {result.workers}"]
    for span in result.spans:
        times = " ".join(f"{value:7.2f}" for value in span.waits)
        used = "  ".join(f"{name} {value:.2f}" for name, value in span.cpu.items())
        lines.append(
            f"  {span.workload:12} {span.callers:3} callers  {span.side:6} {span.rate:6,.0f}/s"
            f"  p50 p95 p99 {times} ms  CPU ms each: {used}"
        )
    return "\n".join(lines)


def shown(value: float, unit: str) -> str:
    """Return a number for people."""
    digits = 0 if unit == "" or value >= 1000 else 1 if value >= 100 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
