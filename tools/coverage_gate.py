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

GATED = ("broker/attest", "broker/authorize", "broker/issue.py")


def uncovered(report: str, gated: Sequence[str] = GATED) -> Iterator[str]:
    """Yield every place in the gated files that was not taken."""
    files = json.loads(report)["files"]
    for prefix in gated:
        names = sorted(name for name in files if name == prefix or name.startswith(f"{prefix}/"))
        if not names:
            yield f"{prefix}: not measured at all"
        for name in names:
            for line in files[name]["missing_lines"]:
                yield f"{name}:{line}: never runs"
            for start, end in files[name]["missing_branches"]:
                yield f"{name}:{start}: never {f'goes on to line {end}' if end > 0 else 'leaves from here'}"


def main(arguments: list[str]) -> int:
    """List what is uncovered; 1 when something is."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    missing = list(uncovered(Path(arguments[0]).read_text()))
    for place in missing:
        print(place)
    if missing:
        print(f"coverage: {len(missing)} lines and branches without a test in {', '.join(GATED)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
