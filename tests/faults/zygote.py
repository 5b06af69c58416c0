"""Brokers that are killed: each is forked from a process that has imported everything, which saves it a second.

Run as a module, it reads one order a line, forks a broker that plays a scenario
and dies where it was told to, and answers with how that ended.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from broker.app import App
from broker.attest import SETTINGS
from broker.config import load_settings
from broker.step import observe
from tests.architecture.sources import ROOT
from tests.faults.edges import Edge, Watch
from tests.faults.scenarios import SCENARIOS, Play
from tests.fixtures.world import Caller

EDGES = "edges"
HANDED_OUT = "handed-out"
LOG = "killed.log"

_SECONDS = 30


@dataclass(frozen=True)
class Order:
    """What a broker is to do, and where it is to die.

    Attributes:
        folder: Of the broker's configuration; what it notes goes there.
        agent: Evidence of the agent.
        admin: Evidence of an admin.
    """

    folder: Path
    scenario: str
    agent: str
    admin: str
    edge: Edge | None

    def to_json(self) -> str:
        """Return it as a line."""
        edge = self.edge.to_json() if self.edge else None
        return json.dumps([str(self.folder), self.scenario, self.agent, self.admin, edge])

    @classmethod
    def from_json(cls, line: str) -> "Order":
        """Return what a line says."""
        folder, scenario, agent, admin, edge = json.loads(line)
        return cls(Path(folder), scenario, agent, admin, Edge.from_json(edge) if edge else None)


class Zygote:
    """The process that brokers are forked from."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def run(self, order: Order) -> int:
        """Let a broker play, and return minus the signal it died of, or 0 when it came to the end."""
        return await asyncio.to_thread(self._run, order)

    def _run(self, order: Order) -> int:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it was started without pipes")
        self._process.stdin.write(f"{order.to_json()}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def running_zygote() -> Iterator[Zygote]:
    """Start the process that brokers are forked from, and end it."""
    argv = [sys.executable, "-m", __name__]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Zygote(process)


async def _play(order: Order) -> None:
    settings = load_settings(order.folder / "broker.yaml", SETTINGS, {})
    app = await App.start(settings)
    trusted = grpc.ssl_channel_credentials((order.folder / "ca.pem").read_bytes())
    channel = grpc.aio.secure_channel(app.addresses["bearer"], trusted)
    play = Play(app, Caller(channel, order.agent), Caller(channel, order.admin), order.folder / HANDED_OUT)
    observe(Watch(order.folder / EDGES, order.edge))
    await SCENARIOS[order.scenario](play)
    os._exit(0)  # nothing is put in order, as if it were killed after the last step


def _fork(order: Order) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log = os.open(order.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        asyncio.run(asyncio.wait_for(_play(order), _SECONDS))
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Fork brokers until there are no more orders."""
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads cannot be forked")
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(_fork(Order.from_json(line)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
