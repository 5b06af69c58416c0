"""The simulation agrees with what can be calculated, and finds again what it was told."""

import math
from dataclasses import replace

import pytest

from tests.bench import capacity
from tests.bench.figures import Figure, Result, Span
from tests.bench.issuing import FLUSH
from tests.bench.simulation import Cost, Costs, Place, closed, opened

NOTHING = Cost(0, 0)


def costs(broker: float = 0.0, vault: float = 0.0, database: float = 0.0, flush: float = 0.0) -> Costs:
    return Costs(NOTHING, Cost(broker, broker), Cost(vault, vault), Cost(database, database), flush)


def test_alone_a_request_takes_what_its_parts_take() -> None:
    seen = closed(costs(0.001, 0.002, 0.003, 0.004), Place(workers=1, cores=2), 1)

    assert seen.wait(0.5) == pytest.approx(0.010)
    assert seen.rate == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(("workers", "cores", "rate"), [(1, 4, 1000), (2, 4, 2000), (2, 1, 1000), (8, 4, 4000)])
def test_workers_and_cores_bound_the_rate(workers: int, cores: int, rate: float) -> None:
    seen = closed(costs(broker=0.001), Place(workers, cores), 32)

    assert seen.rate == pytest.approx(rate, rel=0.03)
    assert seen.wait(0.5) == pytest.approx(32 / rate, rel=0.1)


def test_what_needs_no_lock_runs_beside() -> None:
    seen = closed(replace(costs(broker=0.001), locked=0.5), Place(workers=1, cores=4), 32)

    assert seen.rate == pytest.approx(2000, rel=0.05)


def test_what_comes_after_the_reply_is_not_waited_for_but_takes_its_core() -> None:
    late = replace(costs(broker=0.004), on_path=0.25)

    rare, crowd = opened(late, Place(1, 1), 5, seconds=20), closed(late, Place(1, 1), 8)

    assert rare.wait(0.5) == pytest.approx(0.001)
    assert crowd.rate == pytest.approx(250, rel=0.05)


@pytest.mark.parametrize(("together", "rate"), [(True, 16_000), (False, 8_000)])
def test_a_flush_serves_all_that_wait_for_it(together: bool, rate: float) -> None:
    seen = closed(costs(flush=0.001), Place(workers=2, cores=1, commits_together=together), 16, seconds=1)

    assert seen.rate == pytest.approx(rate, rel=0.1)


def test_what_is_done_once_is_divided_among_those_under_way() -> None:
    shared = Costs(NOTHING, Cost(0.002, 0.001), NOTHING, NOTHING, 0.0)

    assert closed(shared, Place(1, 1), 1).rate == pytest.approx(500, rel=0.02)
    assert closed(shared, Place(1, 1), 10).rate == pytest.approx(1000 / 1.1, rel=0.03)


def test_chance_makes_a_queue_as_long_as_theory_says() -> None:
    # M/D/1: the wait before service is rho / (2 (1 - rho)) services long.
    service, rho = 0.001, 0.7
    expected = service * (1 + rho / (2 * (1 - rho)))

    seen = opened(costs(vault=service), Place(workers=1, cores=1), rho / service, seconds=30)

    assert math.fsum(seen.waits) / len(seen.waits) == pytest.approx(expected, rel=0.05)
    assert seen.rate == pytest.approx(rho / service, rel=0.03)


def measured(truth: Costs, place: Place) -> Result:
    def span(callers: int) -> Span:
        seen = closed(truth, place, callers, 2.0)
        used = {"generator": truth.generator, "broker": truth.broker, "OpenBao": truth.vault}
        cost = {name: (one.alone if callers == 1 else one.busy) * 1000 for name, one in used.items()}
        waits = tuple(seen.wait(share) * 1000 for share in (0.5, 0.95, 0.99))
        return Span("broker", "steady", callers, 1, 1 / seen.rate, waits, (), {**cost, "PostgreSQL": 0.0})

    flush = Figure(FLUSH, truth.flush * 1000, "ms")
    return Result("issuing", "sqlite", place.workers, (flush,), tuple(map(span, (1, 16, 32, 64))))


def test_it_is_fitted_to_two_loads_and_right_about_the_others() -> None:
    truth = Costs(
        Cost(0.00015, 0.0001), Cost(0.0012, 0.0008), Cost(0.0006, 0.0005), NOTHING, 0.0004, on_path=0.6, locked=0.7
    )

    rows = capacity.checked(measured(truth, Place(workers=2, cores=2)), cores=2)

    assert [row.callers for row in rows] == [1, 16, 32, 64]
    assert capacity.worst(rows) < 0.1


def test_needs_grow_with_the_load_and_are_divided_among_cells() -> None:
    needs = capacity.needs(costs(0.0005, 0.0005, 0.0003, 0.0005))

    assert [need.rate for need in needs] == [50, 500, 5_000, 500_000]
    assert [need.cells for need in needs] == [1, 1, 1, 27]
    last = needs[-1]
    assert last.workers * 0.6 == pytest.approx(500_000 * 0.0005, rel=0.1)
    assert last.vault_cores == pytest.approx(500_000 * 0.0005 / 0.6)
    assert last.database_cores <= last.cells * capacity.CELL_CORES
    assert all(0 < need.p50 <= need.p99 < 100 for need in needs)
