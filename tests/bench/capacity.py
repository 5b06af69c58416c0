"""What a deployment needs, from measured costs; and whether the simulation that says so repeats what was measured.

The simulation gets the processor time of each process at one and at 64 callers
and the time of a flush. Two numbers are fitted: what part of the work a caller
waits for, to the median at one caller, and what part of a worker's work needs
the interpreter's lock, to the throughput at 64. Everything else follows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.bench.figures import Result, Span
from tests.bench.issuing import FLUSH
from tests.bench.simulation import Cost, Costs, Place, closed, opened

BASE_RATE: Final = 50
TIMES: Final = (1, 10, 100, 10_000)
LIFETIME_SECONDS: Final = 15 * 60
UTILISATION: Final = 0.6
CELL_CORES: Final = 16
"""Of OpenBao's active node and of the database's primary: one of each serves a cell."""
TRUSTED_ERROR: Final = 0.25

_STEPS: Final = 8
_SECONDS: Final = 0.8


@dataclass(frozen=True, slots=True)
class Checked:
    """One measured span, and what the simulation says about it."""

    callers: int
    rate: float
    simulated_rate: float
    p50: float
    simulated_p50: float

    @property
    def error(self) -> float:
        """How far the simulation is off, the worse of both."""
        rates = abs(self.simulated_rate / self.rate - 1)
        return max(rates, abs(self.simulated_p50 / self.p50 - 1))


@dataclass(frozen=True, slots=True)
class Sizes:
    """What does not depend on time; by default what a worker may have.

    Attributes:
        worker_mib: Memory of a worker after load.
        live_mib: What a live issuance adds to it.
        stored_kib: What an issuance leaves in the database; None when it was not measured.
    """

    worker_mib: float = 120.0
    live_mib: float = 20.0 / 100_000
    stored_kib: float | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What one load needs.

    Attributes:
        times: How many times the base load.
        rate: Credentials a second.
        live: Credentials alive at a time.
        cells: How many independent installations, each with one OpenBao and one database.
        workers: Of all cells, each with a core of its own.
        worker_mib: Memory of each.
        vault_cores: Of all cells.
        database_cores: Of all cells.
        gib_a_day: What all databases grow by; None when it was not measured.
        p50: Simulated in one cell, in milliseconds.
        p99: Likewise.
    """

    times: int
    rate: float
    live: float
    cells: int
    workers: int
    worker_mib: float
    vault_cores: float
    database_cores: float
    gib_a_day: float | None
    p50: float
    p99: float


def steady(result: Result) -> dict[int, Span]:
    """Return the broker's spans of long tasks by number of callers."""
    return {span.callers: span for span in result.spans if (span.workload, span.side) == ("steady", "broker")}


def place_of(result: Result, cores: int) -> Place:
    """Return where it was measured."""
    return Place(result.workers, cores, commits_together=result.database == "postgres")


def fitted(result: Result, cores: int) -> Costs:
    """Return the costs of one result."""
    spans, place = steady(result), place_of(result, cores)
    alone, crowd = spans[min(spans)], spans[max(spans)]
    flush = next(figure.seen for figure in result.figures if figure.name == FLUSH) / 1000
    generator, broker, vault, database = (
        Cost(alone.cpu[name] / 1000, crowd.cpu[name] / 1000)
        for name in ("generator", "broker", "OpenBao", "PostgreSQL")
    )
    costs, median = Costs(generator, broker, vault, database, flush), alone.waits[0] / 1000
    for _ in range(2):
        costs = _fit(costs, _with_locked, lambda trial: closed(trial, place, crowd.callers, _SECONDS).rate > crowd.rate)
        costs = _fit(costs, _with_on_path, lambda trial: closed(trial, place, 1, _SECONDS).wait(0.5) < median)
    return costs


def _with_locked(costs: Costs, value: float) -> Costs:
    return replace(costs, locked=value)


def _with_on_path(costs: Costs, value: float) -> Costs:
    return replace(costs, on_path=value)


def _fit(costs: Costs, put: Callable[[Costs, float], Costs], too_low: Callable[[Costs], bool]) -> Costs:
    """Return the costs with the number between 0 and 1 from which on it is not too low."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if too_low(put(costs, middle)):
            low = middle
        else:
            high = middle
    return put(costs, (low + high) / 2)


def checked(result: Result, cores: int) -> list[Checked]:
    """Return each measured span beside what the simulation says."""
    costs, place = fitted(result, cores), place_of(result, cores)
    rows = []
    for callers, span in steady(result).items():
        seen = closed(costs, place, callers)
        rows.append(Checked(callers, span.rate, seen.rate, span.waits[0], seen.wait(0.5) * 1000))
    return rows


def needs(costs: Costs, sizes: Sizes | None = None) -> list[Need]:
    """Return what each load needs with PostgreSQL and OpenBao on machines of their own."""
    return [_need(costs, sizes or Sizes(), times) for times in TIMES]


def _need(costs: Costs, sizes: Sizes, times: int) -> Need:
    rate = float(BASE_RATE * times)
    vault, database = rate * costs.vault.busy / UTILISATION, rate * costs.database.busy / UTILISATION
    cells = max(1, math.ceil(max(vault, database) / CELL_CORES))
    of_cell = max(1, math.ceil(rate * costs.broker.busy / UTILISATION / cells))
    live = rate * LIFETIME_SECONDS
    cores = max(1, math.ceil(max(vault, database) / cells))
    place = Place(of_cell, cores, shared=False, commits_together=True)
    seen = opened(replace(costs, generator=Cost(0, 0)), place, rate / cells, _simulated_seconds(rate / cells))
    return Need(
        times,
        rate,
        live,
        cells,
        of_cell * cells,
        sizes.worker_mib + sizes.live_mib * live / cells,
        vault,
        database,
        None if sizes.stored_kib is None else rate * 86_400 * sizes.stored_kib / 2**20,
        seen.wait(0.5) * 1000,
        seen.wait(0.99) * 1000,
    )


def _simulated_seconds(rate: float) -> float:
    """Return how long to simulate: some thousand requests, however many come in a second."""
    return min(30.0, max(0.5, 5_000 / rate))


def worst(rows: Sequence[Checked]) -> float:
    """Return the largest error."""
    return max(row.error for row in rows)
