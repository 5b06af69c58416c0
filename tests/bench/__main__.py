"""`python -m tests.bench`: measures what the broker promises, on this machine."""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

# Worker processes are started while gRPC's threads run.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from broker.dev.signals import terminated_like_interrupted
from broker.errors import BrokerError
from tests.bench import machine, report, stack
from tests.bench.figures import Figure, Result, spans_table, table
from tests.bench.issuing import RATIO
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.stack import DATABASES, Bench, DatabaseKind, Parts
from tests.bench.wire import WrongReply
from tests.bench.worker import Ended

LONGEST_SECONDS = 600

_MET, _MISSED, _FAILED, _INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  python -m tests.bench                                 what `make bench` runs: minutes
  python -m tests.bench --all --json docs/performance.json    everything: 40 minutes
  python -m tests.bench --report docs/performance.json  write those figures into docs/
  python -m tests.bench task-end --database postgres    one scenario on one database
  python -m tests.bench --quick --all                   small numbers: do all of them still run?

Leave the machine alone meanwhile: the load before the start is shown, and a
figure taken on a busy machine says little. Repeat what you want to rely on.

exit status: 0 all goals are met, 1 a goal is missed, 2 a part failed or a reply was wrong.
"""


def main() -> int:
    """Run what the command line asks for."""
    wanted = _arguments()
    if wanted.report is not None:
        report.write(wanted.report)
        return _MET
    results: list[Result] = []
    facts: dict[str, str] = {}
    failed: list[str] = []
    try:
        with terminated_like_interrupted(), tempfile.TemporaryDirectory(prefix="credbroker-bench-") as folder:
            Path(folder).chmod(0o755)  # PostgreSQL's user passes through it
            before = machine.load()
            for parts, run in _runs(Path(folder), wanted):
                if not facts:
                    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d}", **machine.facts(parts), "load before": before}
                    for name, value in facts.items():
                        _say(f"{name:12} {value}")
                try:
                    results.append(_result(parts, *run, wanted))
                except (BrokerError, WrongReply, Ended, TimeoutError) as error:
                    failed.append(f"{run[0]} on {run[1]} failed: {type(error).__name__}: {error}")
                    _say(failed[-1])
    except KeyboardInterrupt:
        _say("interrupted")
        return _INTERRUPTED
    except BrokerError as error:
        failed.append(f"the servers failed: {error}")
    finally:
        if wanted.json is not None and results:
            document = {"machine": facts, "results": [asdict(item) for item in results]}
            wanted.json.write_text(json.dumps(document, indent=1) + "\n")
        if results:
            _say("\n" + table(results, judged=not wanted.quick))
        for failure in failed:
            _say(failure)
        _say_ratio(results)
    if failed:
        return _FAILED
    missed = not wanted.quick and any(not figure.met for result in results for figure in result.figures)
    return _MISSED if missed else _MET


def _runs(folder: Path, wanted: argparse.Namespace) -> Iterator[tuple[Parts, tuple[str, DatabaseKind, int]]]:
    """Yield what is to be run, each on servers of its own: what one leaves in OpenBao would cost the next one time."""
    usual = [name for name, scenario in SCENARIOS.items() if scenario.usual or wanted.all]
    runs = [
        (name, database, workers)
        for name in wanted.scenarios or usual
        for database in wanted.database or DATABASES
        for workers in wanted.workers or SCENARIOS[name].workers
    ]
    with ExitStack() as servers:
        parts: Parts | None = None
        for number, run in enumerate(runs):
            if parts is None or not wanted.quick:
                servers.close()
                own = folder / str(number)
                own.mkdir(mode=0o755)
                parts = servers.enter_context(stack.running(own))
            yield parts, run


def _result(parts: Parts, name: str, database: DatabaseKind, workers: int, wanted: argparse.Namespace) -> Result:
    started = time.monotonic()
    with parts.broker(database, quick=wanted.quick, compare=wanted.compare, workers=workers) as bench:
        try:
            figures = asyncio.run(_bounded(SCENARIOS[name], bench))
        except Exception:
            _say(f"the broker's log ends with:\n{bench.broker.log_tail()}")
            raise
        result = Result(name, database, workers, tuple(figures), tuple(bench.spans))
    _say(f"{name} on {database}, workers: {workers}, took {time.monotonic() - started:.0f} s")
    if result.spans:
        _say(spans_table(result))
    return result


async def _bounded(scenario: Scenario, bench: Bench) -> Sequence[Figure]:
    async with asyncio.timeout(LONGEST_SECONDS):
        return await scenario.run(bench)


def _say_ratio(results: Sequence[Result]) -> None:
    """Say how issuing compares with logins, of the first of these that was measured; the last line of all."""
    for database, workers in (("sqlite", 2), ("sqlite", 1), ("postgres", 2), ("postgres", 1)):
        for result in results:
            if (result.scenario, result.database, result.workers) == ("issuing", database, workers):
                ratio = next((figure.seen for figure in result.figures if figure.name == RATIO), None)
                if ratio is not None:
                    _say(f"issue_vs_vault_login_ratio={ratio:.2f}")
                    return


def _arguments() -> argparse.Namespace:
    listed = "\n".join(
        f"  {name:14}{'*' if scenario.usual else ' '} {scenario.summary}" for name, scenario in SCENARIOS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the broker on real servers, and compare with the goals.\n\nscenarios:\n" + listed,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", type=_scenario, help="default: those with a star")
    parser.add_argument("--all", action="store_true", help="run every scenario")
    parser.add_argument(
        "--database", action="append", choices=DATABASES, help="the broker's database; default: one run on each"
    )
    parser.add_argument(
        "--workers",
        action="append",
        type=int,
        metavar="N",
        help="how many processes serve; default: as the scenario says",
    )
    parser.add_argument("--quick", action="store_true", help="small numbers; goals are not judged")
    parser.add_argument("--compare", action="store_true", help="measure also what one would use without a broker")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures there, too")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="measure nothing: write such a file's figures into docs/"
    )
    return parser.parse_args()


def _scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SCENARIOS)}")
    return name


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
