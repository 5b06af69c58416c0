"""Requires full branch coverage of the code that decides.

Usage: coverage_gate.py REPORT

REPORT is what ``coverage json`` writes. Each line and branch of the gated
modules that no test has taken is listed, and so is a gated path of which the
report knows nothing.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

GATED = ("broker/attest", "broker/authorize", "broker/deciding.py", "broker/issue.py")


def uncovered(report: str, gated: Sequence[str] = GATED) -> Iterator[str]:
    """Yield every place in the gated files that was not taken."""
    files = json.loads(report)["files"]
    for prefix in gated:
        names = sorted(name for name in files if name == prefix or name.startswith(f"{prefix}/"))
        if not names:
            yield f"{prefix}: not measured at all"
        for name in names:
            lines = files[name]["missing_lines"]
            for first, last in _stretches(lines):
                yield f"{name}:{first}: never runs" if first == last else f"{name}:{first}-{last}: never run"
            for start, end in files[name]["missing_branches"]:
                if start not in lines:
                    yield f"{name}:{start}: never {f'goes on to line {end}' if end > 0 else 'leaves from here'}"


def _stretches(lines: Sequence[int]) -> Iterator[tuple[int, int]]:
    first: int | None = None
    last: int | None = None
    for line in lines:
        if first is None or last is None:
            first = line
        elif line != last + 1:
            yield first, last
            first = line
        last = line
    if first is not None and last is not None:
        yield first, last


def main(arguments: list[str]) -> int:
    """List what is uncovered; 1 when something is."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        missing = list(uncovered(Path(arguments[0]).read_text()))
    except FileNotFoundError:
        missing = ["the tests left no report"]
    for place in missing:
        print(place)
    if missing:
        print(f"coverage: {len(missing)} places without a test in {', '.join(GATED)}, where there must be none")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
