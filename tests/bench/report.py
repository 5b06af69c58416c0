"""Figures of a run, written into the documentation: tables between markers, and a plot.

A marker is a comment, ``<!-- figures: NAME -->``, and its end is
``<!-- end of figures -->``. What a run did not measure stays as it is.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.bench import capacity, plot
from tests.bench.bounds import BARE
from tests.bench.figures import Figure, Result, Span, result_of, shown
from tests.bench.footprint import AFTER_LOAD, LIVE, added_by
from tests.bench.issuing import FLUSH
from tests.bench.lists import STORED_KIB

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE, PLOT = "performance.md", "issuing.svg"

_MARKED: Final = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_ENDS: Final = ("task-end", "kill-switch", "expiry-wave", "connections")
_DATABASES: Final = {"sqlite": "SQLite", "postgres": "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Run:
    """What a JSON file holds."""

    machine: Mapping[str, str]
    results: Sequence[Result]

    def of(self, scenario: str) -> list[Result]:
        """Return the results of one scenario."""
        return [result for result in self.results if result.scenario == scenario]


def read(file: Path) -> Run:
    """Return what a run measured."""
    document = json.loads(file.read_text())
    return Run(document["machine"], [result_of(result) for result in document["results"]])


def write(file: Path, docs: Path = DOCS) -> None:
    """Put the figures of a JSON file into the documentation.

    Raises:
        KeyError: when the page has a marker for what is not known here.
    """
    run = read(file)

    def filled(found: re.Match[str]) -> str:
        made = SECTIONS[found[2]](run)
        return f"{found[1]}\n{made}\n\n{found[3]}" if made else found[0]

    page = docs / PAGE
    page.write_text(_MARKED.sub(filled, page.read_text()))
    if run.of("issuing"):
        (docs / PLOT).write_text(plot.svg(_panels(run.of("issuing"))))


def _machine(run: Run) -> str:
    facts = {name: value for name, value in run.machine.items() if name not in ("date", "revision", "load before")}
    listed = "; ".join(facts.values())
    before = f"{run.machine['load before']} processes ran in the 1 and 5 minutes before"
    return f"{run.machine['date']}, revision {run.machine['revision']}: {listed}; {before}."


def _goals(run: Run) -> str:
    """Return every figure that has a goal, one column for each database and number of workers."""
    return _by_configuration(run.results, lambda figure: bool(figure.wanted))


def _ratios(run: Run) -> str:
    return _by_configuration(run.of("issuing"), lambda figure: figure.unit == "x")


def _bare(run: Run) -> str:
    return _by_configuration(run.of("bounds"), lambda figure: figure.unit == "x" and BARE in figure.name)


def _memory(run: Run) -> str:
    return _by_configuration(run.of("issuing"), lambda figure: figure.unit == "MiB")


def _ends(run: Run) -> str:
    return _by_configuration([result for result in run.results if result.scenario in _ENDS], lambda _: True)


def _others(run: Run) -> str:
    others = [result for result in run.results if result.scenario not in (*_ENDS, "issuing", "bounds")]
    return _by_configuration(others, lambda _: True)


def _by_configuration(results: Sequence[Result], wanted: Callable[[Figure], bool]) -> str:
    columns = list(dict.fromkeys((result.database, result.workers) for result in results))
    rows: dict[tuple[str, str], dict[tuple[str, int], Figure]] = {}
    for result in results:
        for figure in filter(wanted, result.figures):
            rows.setdefault((result.scenario, figure.name), {})[result.database, result.workers] = figure
    if not rows:
        return ""
    heads = [f"{_DATABASES[database]}, {_workers(workers)}" for database, workers in columns]
    lines = [_row(["scenario", "figure", "goal", *heads]), _row(["---"] * (3 + len(heads)))]
    for (scenario, name), seen in rows.items():
        goal = next(iter(seen.values())).wanted
        cells = [_cell(seen[column]) if column in seen else "" for column in columns]
        lines.append(_row([scenario, name, goal, *cells]))
    return "\n".join(lines)


def _cell(figure: Figure) -> str:
    text = shown(figure.seen, figure.unit)
    return text if figure.met else f"**{text}**"


def _spans(run: Run, scenario: str) -> str:
    """Return what each load did, on the configuration that is shown in full."""
    results = [result for result in run.of(scenario) if result.spans]
    if not results:
        return ""
    result = next((one for one in results if (one.database, one.workers) == ("sqlite", 2)), results[0])
    processes = list(result.spans[0].cpu)
    heads = ["workload", "callers", "side", "credentials/s", "p50", "p95", "p99", *(f"{one} CPU" for one in processes)]
    lines = [f"{_DATABASES[result.database]}, {_workers(result.workers)}; times and CPU for one credential in ms.", ""]
    lines += [_row(heads), _row(["---"] * len(heads))]
    for span in result.spans:
        numbers = [f"{value:.2f}" for value in (*span.waits, *span.cpu.values())]
        lines.append(_row([span.workload, str(span.callers), span.side, f"{span.rate:,.0f}", *numbers]))
    return "\n".join(lines)


def _simulation(run: Run) -> str:
    """Return what the simulation says about each load that was measured."""
    heads = ["configuration", "callers", "credentials/s", "simulated", "p50", "simulated", "error"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for result in _simulated(run):
        for row in capacity.checked(result, _cores(run)):
            numbers = [f"{row.rate:,.0f}", f"{row.simulated_rate:,.0f}", f"{row.p50:.2f}", f"{row.simulated_p50:.2f}"]
            name = f"{_DATABASES[result.database]}, {_workers(result.workers)}"
            lines.append(_row([name, str(row.callers), *numbers, f"{row.error:.0%}"]))
    return "\n".join(lines) if len(lines) > 2 else ""


def _capacity(run: Run) -> str:
    """Return what multiples of the base load need, from the costs of one configuration."""
    results = _simulated(run)
    if not results:
        return ""
    result = next((one for one in reversed(results) if one.database == "postgres"), results[-1])
    error = capacity.worst(capacity.checked(result, _cores(run)))
    costs = capacity.fitted(result, _cores(run))
    trusted = error <= capacity.TRUSTED_ERROR
    lines = [
        f"From {_DATABASES[result.database]}, {_workers(result.workers)}: {costs.broker.busy * 1000:.2f} ms of the "
        f"broker, {costs.vault.busy * 1000:.2f} ms of OpenBao and {costs.database.busy * 1000:.2f} ms of the database "
        f"for each credential; a flush takes {costs.flush * 1000:.2f} ms. The simulation is off by at most {error:.0%} "
        "there" + ("." if trusted else ", too far for its times to be shown."),
        "",
    ]
    heads = ["load", "credentials/s", "alive", "cells", "workers", "MiB each", "OpenBao cores"]
    heads += ["database cores", "GiB a day"]
    heads += ["p50 in ms", "p99 in ms"] if trusted else []
    lines += [_row(heads), _row(["---"] * len(heads))]
    for need in capacity.needs(costs, _sizes_of(run, result.database)):
        numbers = [f"{need.rate:,.0f}", f"{need.live:,.0f}", f"{need.cells:,}", f"{need.workers:,}"]
        sizes = (need.worker_mib, need.vault_cores, need.database_cores, need.gib_a_day)
        numbers += ["" if size is None else f"{size:,.0f}" if size >= 10 else f"{size:.1f}" for size in sizes]
        lines.append(
            _row([f"{need.times:,} x", *numbers, *([f"{need.p50:.1f}", f"{need.p99:.1f}"] if trusted else [])])
        )
    return "\n".join(lines)


def _sizes_of(run: Run, database: str) -> capacity.Sizes:
    """Return the sizes that were measured."""
    seen = {figure.name: figure.seen for one in run.results if one.database == database for figure in one.figures}
    sizes = capacity.Sizes(stored_kib=seen.get(STORED_KIB))
    if added_by(LIVE) not in seen:
        return sizes
    return replace(sizes, worker_mib=seen[AFTER_LOAD], live_mib=seen[added_by(LIVE)] / LIVE)


def _simulated(run: Run) -> list[Result]:
    return [
        result
        for result in run.of("issuing")
        if any(figure.name == FLUSH for figure in result.figures) and {1, 64} <= set(capacity.steady(result))
    ]


def _cores(run: Run) -> int:
    found = re.search(r"(\d+) usable cores", run.machine["processor"])
    return int(found[1]) if found else 1


def _panels(results: Sequence[Result]) -> list[list[plot.Panel]]:
    workloads = list(dict.fromkeys(span.workload for result in results for span in result.spans))
    return [
        [_panel(results, workload, "credentials a second", lambda span: span.rate) for workload in workloads],
        [_panel(results, workload, "p50 in ms", lambda span: span.waits[0]) for workload in workloads],
    ]


def _panel(results: Sequence[Result], workload: str, unit: str, value: Callable[[Span], float]) -> plot.Panel:
    lines: dict[str, list[float]] = {}
    direct: dict[int, list[float]] = {}
    for result in results:
        name = f"{_DATABASES[result.database]}, {_workers(result.workers)}"
        for span in result.spans:
            if span.workload == workload and span.side == "broker":
                lines.setdefault(name, []).append(value(span))
            elif span.workload == workload:
                direct.setdefault(span.callers, []).append(value(span))
    # Of all configurations: a login knows nothing of the broker's database.
    lines["login to OpenBao"] = [sum(values) / len(values) for values in direct.values()]
    return plot.Panel(workload, unit, list(direct), lines)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


SECTIONS: Final[Mapping[str, Callable[[Run], str]]] = {
    "machine": _machine,
    "goals": _goals,
    "ratios": _ratios,
    "issuing": lambda run: _spans(run, "issuing"),
    "bounds": lambda run: _spans(run, "bounds"),
    "bare": _bare,
    "memory": _memory,
    "ends": _ends,
    "others": _others,
    "simulation": _simulation,
    "capacity": _capacity,
}
