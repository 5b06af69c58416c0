"""Runs every check that needs no running server, and says at the end what failed.

Usage: check.py [NAME...]

All of them run even when one fails; what a check prints is shown when it
fails. Names choose some of them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Check:
    """One command; it has passed when it ends with 0."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a check."""

    check: Check
    passed: bool
    seconds: float
    output: str


CHECKS = (
    Check("format", ("ruff", "format", "--check")),
    Check("lint", ("ruff", "check")),
    # Not incremental: what was missing a moment ago must not still be missing in a cache.
    Check("types", ("mypy", "--no-incremental")),
    Check("imports", ("lint-imports", "--no-cache", "--no-logo")),
    Check("proto-lint", ("buf", "lint", "protos")),
    Check("proto-format", ("buf", "format", "--diff", "--exit-code", "protos")),
    Check("stubs", ("python", "tools/generate_stubs.py", "--check")),
    Check("constraints", ("python", "tools/constraints.py", "check")),
)


def run(check: Check) -> Result:
    """Run one check with the tools of this interpreter's environment."""
    started = time.monotonic()
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    try:
        ended = subprocess.run(
            check.command,
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Result(check, False, time.monotonic() - started, f"{error}\n")
    return Result(check, ended.returncode == 0, time.monotonic() - started, ended.stdout)


def report(result: Result) -> None:
    """Print one line, and the check's own output when it failed."""
    word = "ok" if result.passed else "FAILED"
    print(f"{word:<7} {result.check.name:<13} {result.seconds:5.1f} s   {' '.join(result.check.command)}", flush=True)
    if not result.passed:
        print(result.output.rstrip(), flush=True)


def main(names: Sequence[str]) -> int:
    """Run the checks; 1 when one failed, 2 when there is none of a given name."""
    unknown = set(names) - {check.name for check in CHECKS}
    if unknown:
        print(f"no such check: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [check for check in CHECKS if not names or check.name in names]
    failed = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for result in pool.map(run, chosen):
            report(result)
            if not result.passed:
                failed.append(result.check.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
        return 1
    print("all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
