"""A plot of load as SVG, written by hand: the same figures give the same bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 170, 56, 44, 64
_COLOURS: Final = ("#1f6fb4", "#e07b1a", "#2f9e44", "#8f5bb5", "#6b7280")
_TEXT: Final = 'font-family="sans-serif" fill="#333"'
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: values by name of the line, at the same places on the x axis for all."""

    title: str
    unit: str
    places: Sequence[int]
    lines: Mapping[str, Sequence[float]]


def svg(rows: Sequence[Sequence[Panel]]) -> str:
    """Return a document with the panels in rows; lines of one name have one colour in all of them."""
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.lines))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    width = _LEFT + max(map(len, rows)) * (_WIDTH + _GAP)
    height = _TOP + len(rows) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(colours),
    ]
    for down, row in enumerate(rows):
        for right, panel in enumerate(row):
            at = (_LEFT + right * (_WIDTH + _GAP), _TOP + down * (_HEIGHT + _GAP))
            parts += [f'<g transform="translate({at[0]},{at[1]})">', *_panel(panel, colours), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(colours: Mapping[str, str]) -> Iterator[str]:
    at = _LEFT
    for name, colour in colours.items():
        yield f'<line x1="{at}" y1="14" x2="{at + 18}" y2="14" stroke="{colour}" stroke-width="2"/>'
        yield f'<text x="{at + 23}" y="18" font-size="12" {_TEXT}>{escape(name)}</text>'
        at += 42 + 7 * len(name)


def _panel(panel: Panel, colours: Mapping[str, str]) -> Iterator[str]:
    top = _ceiling(max((value for line in panel.lines.values() for value in line), default=1.0))
    yield f'<text x="0" y="-6" font-size="12" {_TEXT}>{escape(panel.title)}</text>'
    for quarter in range(5):
        value, y = top * quarter / 4, _HEIGHT * (1 - quarter / 4)
        yield f'<line x1="0" y1="{y:g}" x2="{_WIDTH}" y2="{y:g}" stroke="#ddd"/>'
        yield f'<text x="-5" y="{y + 4:g}" font-size="10" text-anchor="end" {_TEXT}>{value:,.6g}</text>'
    for place in panel.places:
        x = _x(place, panel.places)
        yield f'<text x="{x:.1f}" y="{_HEIGHT + 14}" font-size="10" text-anchor="middle" {_TEXT}>{place}</text>'
    yield (
        f'<text x="{_WIDTH}" y="{_HEIGHT + 28}" font-size="10" text-anchor="end" {_TEXT}>'
        f"{escape(panel.unit)}, by callers</text>"
    )
    for name, values in panel.lines.items():
        points = [
            (_x(place, panel.places), _HEIGHT * (1 - value / top))
            for place, value in zip(panel.places, values, strict=True)
        ]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{drawn}" fill="none" stroke="{colours[name]}" stroke-width="2"/>'
        for x, y in points:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colours[name]}"/>'


def _x(place: int, places: Sequence[int]) -> float:
    return _WIDTH * place / max(places)


def _ceiling(value: float) -> float:
    """Return a round number not below the value, for the end of an axis."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    while size > value:
        size /= 10
    return next(step * size for step in _STEPS if step * size >= value)
