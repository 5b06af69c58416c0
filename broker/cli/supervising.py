"""Several workers on one machine: a process that serves nothing itself starts them and keeps them running.

Each worker is a broker of its own, started by exec: gRPC does not survive a
fork. They listen on the same addresses, and the kernel spreads connections
among them.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from broker import scrape
from broker.cli.failures import MISUSED, Failure
from broker.cli.ports import reserved
from broker.config import ENVIRONMENT_PREFIX, Metrics, Settings
from broker.replica import replica_name
from broker.serve import logs

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
STEADY: Final = 60.0
"""Seconds after which a worker counts as one that runs well."""
MARGIN: Final = timedelta(seconds=10)
"""What a worker may need beyond `limits.drain_timeout` to end."""

Process = asyncio.subprocess.Process

log = structlog.get_logger(__name__)


def supervise(settings: Settings, config: Path, count: int) -> None:
    """Keep workers running until SIGTERM or SIGINT, then let them finish what is under way.

    Those that take longer than `limits.drain_timeout` and a margin are killed;
    a second signal kills them at once. Should this process be killed, the
    workers finish what is under way and end.

    Args:
        settings: The configuration.
        config: The file it comes from.
        count: How many workers.

    Raises:
        ConfigError: when an address cannot be listened on.
        Failure: with exit code 2 when a worker found the configuration wrong,
            with 1 when one did not end cleanly.
    """
    logs.configure(settings.log.level, settings.log.format, replica_name())
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "broker", "serve", "--config", str(config), "--lifeline", str(reading)]
    with (
        os.fdopen(reading),
        os.fdopen(writing, "w"),
        reserved(settings.listen) as addresses,
        TemporaryDirectory(prefix="credbroker-metrics-") as figures,
    ):
        environ = {**os.environ, **variables(addresses), scrape.MULTIPROCESS: figures}
        supervisor = Supervisor(
            _starter(command, environ, reading),
            partial(scrape.forget_process, multiprocess_dir=Path(figures)),
            (settings.limits.drain_timeout + MARGIN).total_seconds(),
        )
        codes = asyncio.run(_run(supervisor, count, addresses, settings.metrics, Path(figures)))
    if MISUSED in codes:
        raise Failure("a worker found the configuration wrong", advice="see what it said", exit_code=MISUSED)
    if any(codes):
        raise Failure("not all workers ended cleanly", advice="the log says which")
    log.info("ended")


async def _run(
    supervisor: "Supervisor", count: int, addresses: Mapping[str, str], metrics: Metrics | None, figures: Path
) -> list[int]:
    async with AsyncExitStack() as held:
        where = dict(addresses)
        if metrics is not None:
            where["metrics"] = await held.enter_async_context(scrape.serve_metrics(metrics.address, figures))
        log.info("starting workers", workers=count, **where)
        return await supervisor.run(count)


def variables(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the workers their addresses; quoted, since an IPv6 address is no plain YAML."""
    return {
        f"{ENVIRONMENT_PREFIX}LISTEN__{name.upper()}__ADDRESS": json.dumps(address)
        for name, address in addresses.items()
    }


def _starter(command: Iterable[str], environ: Mapping[str, str], lifeline: int) -> Callable[[], Awaitable[Process]]:
    def start() -> Awaitable[Process]:
        return asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            env=environ,
            pass_fds=[lifeline],
            # A terminal's Ctrl-C reaches the supervisor alone, which passes it on once.
            start_new_session=True,
        )

    return start


class Supervisor:
    """Keeps workers running.

    Args:
        start: Starts a worker.
        forget: Is told the process id of each that has ended.
        patience: Seconds they may take to end.
    """

    def __init__(self, start: Callable[[], Awaitable[Process]], forget: Callable[[int], None], patience: float) -> None:
        self._start = start
        self._forget = forget
        self._patience = patience
        self._ending = asyncio.Event()
        self._running: set[Process] = set()

    async def run(self, count: int) -> list[int]:
        """Keep that many workers running until a signal; return the exit codes of the last ones.

        A worker that ended on SIGTERM before it could catch it ended with 0.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(self._keep()) for _ in range(count)]
        return [task.result() for task in kept]

    def _on_signal(self) -> None:
        if self._ending.is_set():
            log.warning("asked again: the workers are killed")
            self._kill()
        else:
            log.info("ending: the workers finish what is under way")
            self._end()

    def _end(self) -> None:
        if self._ending.is_set():
            return
        self._ending.set()
        for worker in self._running:
            _terminate(worker)
        asyncio.get_running_loop().call_later(self._patience, self._kill)

    def _kill(self) -> None:
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()

    async def _keep(self) -> int:
        clock, delay = asyncio.get_running_loop().time, FIRST_DELAY
        while True:
            started_at = clock()
            code = await self._run_one()
            if code == MISUSED:
                self._end()
            if self._ending.is_set():
                return 0 if code == -signal.SIGTERM else code
            if clock() - started_at >= STEADY:
                delay = FIRST_DELAY
            log.warning("a worker ended, another is started", exit_code=code, seconds=delay)
            if await self._ended_within(delay):
                return 0
            delay = min(2 * delay, LONGEST_DELAY)

    async def _run_one(self) -> int:
        """Start a worker and return the code that it ended with, negative for a signal."""
        try:
            worker = await self._start()
        except OSError as error:
            log.error("no worker could be started", reason=error.strerror)
            return 1
        log.info("started a worker", pid=worker.pid)
        self._running.add(worker)
        if self._ending.is_set():
            _terminate(worker)
        code = await worker.wait()
        self._running.discard(worker)
        self._forget(worker.pid)
        log.info("a worker has ended", pid=worker.pid, exit_code=code)
        return code

    async def _ended_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
        return self._ending.is_set()


def _terminate(worker: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.terminate()
