"""What a run measured reaches the documentation, and nothing else is touched."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import figures, report
from tests.bench.bounds import BARE
from tests.bench.figures import Figure, Result, Span
from tests.bench.footprint import AFTER_LOAD, LIVE, added_by
from tests.bench.issuing import FLUSH
from tests.bench.lists import STORED_KIB

PAGE = """Before.

<!-- figures: goals -->
old
<!-- end of figures -->

Between.

<!-- figures: issuing -->
<!-- end of figures -->

<!-- figures: others -->
stays
<!-- end of figures -->
"""


CPU = {"broker": 0.8, "OpenBao": 0.7, "generator": 0.1}


def span(side: str, callers: int, done: int) -> Span:
    return Span(side, "steady", callers, done, 2.0, (1.5, 2.5, 3.5), (), {"broker": 0.42, "generator": 0.1})


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    results = [
        Result(
            "issuing",
            database,
            workers,
            (Figure("ratio", 2.1, "x", at_least=2.0), Figure("alone", ratio, "x", 0.5), Figure("held", 80.0, "MiB")),
            (span("broker", 1, 300), span("direct", 1, 100), span("broker", 32, 4000), span("direct", 32, 2000)),
        )
        for database, workers, ratio in (("sqlite", 1, 0.6), ("sqlite", 2, 0.4))
    ]
    document = {"machine": {"date": "2026-01-01"}, "results": [asdict(result) for result in results]}
    (tmp_path / "run.json").write_text(json.dumps(document))
    (tmp_path / report.PAGE).write_text(PAGE)
    return tmp_path


def test_tables_stand_between_their_markers(docs: Path) -> None:
    report.write(docs / "run.json", docs)

    page = (docs / report.PAGE).read_text()
    assert "| issuing | ratio | >= 2.00 x | 2.10 x | 2.10 x |" in page
    assert "| issuing | alone | <= 0.50 x | **0.60 x** | 0.40 x |" in page
    assert "held" not in page
    assert "| steady | 32 | broker | 2,000 | 1.50 | 2.50 | 3.50 | 0.42 | 0.10 |" in page
    assert page.startswith("Before.\n")
    assert "\nBetween.\n" in page
    assert "old" not in page
    assert "\nstays\n" in page


def test_writing_twice_changes_nothing(docs: Path) -> None:
    report.write(docs / "run.json", docs)
    first = (docs / report.PAGE).read_text(), (docs / report.PLOT).read_text()

    report.write(docs / "run.json", docs)

    assert ((docs / report.PAGE).read_text(), (docs / report.PLOT).read_text()) == first


def test_the_plot_is_a_drawing_of_every_line(docs: Path) -> None:
    report.write(docs / "run.json", docs)

    drawing = ElementTree.fromstring((docs / report.PLOT).read_text())
    lines = drawing.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 3
    assert all(len(str(line.get("points")).split()) == 2 for line in lines)


def test_every_section_is_made_from_a_whole_run(docs: Path) -> None:
    spans = tuple(
        Span("broker", "steady", callers, 1, 0.002, (1.2 * callers, 9.0, 9.0), (), {**CPU, "PostgreSQL": 0.3})
        for callers in (1, 16, 32, 64)
    )
    results = [
        Result("issuing", "postgres", 2, (Figure(FLUSH, 0.4, "ms"), Figure("held", 80.0, "MiB")), spans),
        Result("footprint", "postgres", 1, (Figure(AFTER_LOAD, 90, "MiB"), Figure(added_by(LIVE), 10, "MiB"))),
        Result("lists", "postgres", 1, (Figure(STORED_KIB, 2, "KiB"),)),
        Result("task-end", "postgres", 1, (Figure("end", 0.1, "s", 1.0),)),
        Result("bounds", "postgres", 1, (Figure(f"{BARE}: p50", 1.5, "x"), Figure("OpenBao: p50", 0.5, "x")), spans),
    ]
    machine = {"date": "2026-01-01", "revision": "1", "processor": "one, 2 usable cores", "load before": "0 0"}
    document = {"machine": machine, "results": [asdict(result) for result in results]}
    (docs / "run.json").write_text(json.dumps(document))
    run = report.read(docs / "run.json")

    made = {name: make(run) for name, make in report.SECTIONS.items()}

    assert {name for name, text in made.items() if not text} == {"ratios"}
    assert "| bounds | a bare broker: p50 |  | 1.50 x |" in made["bare"]
    assert "OpenBao" not in made["bare"]
    assert "| PostgreSQL, 2 workers | 64 | 500 |" in made["simulation"]
    assert "| 1 x | 50 | 45,000 | 1 | 1 | 94 | 0.1 | 0.0 | 8.2 |" in made["capacity"]


def test_an_unknown_marker_is_an_error(docs: Path) -> None:
    (docs / report.PAGE).write_text(PAGE.replace("goals", "gaols"))

    with pytest.raises(KeyError):
        report.write(docs / "run.json", docs)


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("most", 1.0, "s", 1.0), True),
        (Figure("most", 1.1, "s", 1.0), False),
        (Figure("least", 2.0, "x", at_least=2.0), True),
        (Figure("least", 1.9, "x", at_least=2.0), False),
        (Figure("none", 1.9, "x"), True),
    ],
)
def test_goals_bound_from_above_or_from_below(figure: Figure, met: bool) -> None:
    assert figure.met is met
    assert ("NO" in figures.table([Result("s", "sqlite", 1, (figure,))], judged=True)) is not met


def test_every_marker_of_the_page_is_known() -> None:
    page = (report.DOCS / report.PAGE).read_text()

    assert {found[2] for found in report._MARKED.finditer(page)} == set(report.SECTIONS)
