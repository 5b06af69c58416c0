"""The edges of steps: where a process can be killed, and which of them are one moment."""

import json
import os
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

from broker.step import Step

BEFORE: Final = "before"
AFTER: Final = "after"

_inside: ContextVar[Step | None] = ContextVar("inside", default=None)


@dataclass(frozen=True)
class Edge:
    """Just before or just after a step was taken for the n-th time, inside another or by itself."""

    side: str
    step: Step
    inside: Step | None
    n: int

    def __str__(self) -> str:
        where = f" in {self.inside.value}" if self.inside else ""
        return f"{self.side} {self.step.value}{where} #{self.n}"

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Edge":
        """Return what a line says."""
        said = json.loads(line)
        inside = Step(said["inside"]) if said["inside"] else None
        return cls(side=said["side"], step=Step(said["step"]), inside=inside, n=said["n"])


Moment = tuple[Edge, ...]


def moments(edges: Iterable[Edge]) -> list[Moment]:
    """Put together the edges between which nothing left the process.

    All that a workflow does to the world it does inside a step, and a step that
    takes another begins with that. So nothing happens between the end of a step
    and the beginning of the next, nor between the beginnings of two that are
    nested: whichever of these edges a process dies at, it leaves the same behind.
    """
    found: list[Moment] = []
    for edge in edges:
        last = found[-1][-1] if found else None
        nested = last is not None and edge.side == BEFORE and edge.inside is last.step
        if last is not None and (last.side == AFTER or nested):
            found[-1] = (*found[-1], edge)
        else:
            found.append((edge,))
    return found


class Watch:
    """Stands around every step, writes down each edge in a file, and ends the process at one.

    Calls to Vault that belong to no step of a workflow, such as those of
    the health check, are let pass: they happen at any time.
    """

    def __init__(self, file: Path, deadly: Edge | None) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._deadly = deadly
        self._seen: dict[tuple[str, Step, Step | None], int] = {}

    def __call__(self, step: Step) -> "_Around":
        return _Around(self, step)

    def pass_by(self, side: str, step: Step, inside: Step | None) -> None:
        """Note an edge, or die of it."""
        if step is Step.VAULT_CALL and inside is None:
            return
        n = self._seen[side, step, inside] = self._seen.get((side, step, inside), 0) + 1
        edge = Edge(side, step, inside, n)
        os.write(self._file, f"{edge.to_json()}\n".encode())
        if edge == self._deadly:
            os.kill(os.getpid(), SIGKILL)


class _Around:
    def __init__(self, watch: Watch, step: Step) -> None:
        self._watch, self._step = watch, step

    def __enter__(self) -> None:
        self._outer = _inside.get()
        self._watch.pass_by(BEFORE, self._step, self._outer)
        self._token = _inside.set(self._step)

    def __exit__(self, *_: object) -> None:
        _inside.reset(self._token)
        self._watch.pass_by(AFTER, self._step, self._outer)
