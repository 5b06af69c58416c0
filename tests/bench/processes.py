"""What processes use, as the kernel counts it: a process together with its descendants."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_GONE: Final = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process holds, in MiB.

    Attributes:
        resident: With what it shares with others (RSS).
        proportional: With its part of what is shared (PSS).
    """

    resident: float
    proportional: float


def tree(pid: int) -> Iterator[int]:
    """Yield the process and its descendants."""
    yield pid
    with suppress(*_GONE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
                for child in (thread / "children").read_text().split():
                    yield from tree(int(child))


def processor_time(pid: int) -> float:
    """Return how many seconds all of them have been running on a processor.

    Children that ended and were waited for count as well: PostgreSQL has a
    process for each connection.
    """
    return sum(map(_ticks, tree(pid))) / _TICKS


def _ticks(pid: int) -> int:
    with suppress(*_GONE):
        # man 5 proc: utime, stime, cutime, cstime.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0


def memory(pid: int) -> list[Memory]:
    """Return what each of them holds; of a supervisor and its workers, the supervisor first."""
    held = []
    for one in tree(pid):
        with suppress(*_GONE):
            sizes = {
                name: int(rest.split()[0]) / 1024
                for name, _, rest in (
                    line.partition(":") for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
                )
            }
            held.append(Memory(sizes["Rss"], sizes["Pss"]))
    return held
