"""A replica in a process of its own, whose clock follows a file; it can be killed, paused and started again."""

import asyncio
import mmap
import os
import signal
import struct
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from broker.app import App
from broker.attest import SETTINGS
from broker.clock import SystemClock
from broker.config import load_settings
from broker.serve import logs
from tests.architecture.sources import ROOT

_START_SECONDS = 60
_TIMES = struct.Struct("dd")


class Times:
    """What a replica's clock says, shared with its process: seconds that have passed, and by how many it is wrong."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(_TIMES.pack(0.0, 0.0))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _TIMES.size)

    def set(self, offset: timedelta, wrong_by: timedelta) -> None:
        self._memory[:] = _TIMES.pack(offset.total_seconds(), wrong_by.total_seconds())

    def get(self) -> tuple[timedelta, timedelta]:
        offset, wrong_by = _TIMES.unpack(self._memory[:])
        return timedelta(seconds=offset), timedelta(seconds=wrong_by)


class FollowingClock(SystemClock):
    """A clock that somebody else moves."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def now(self) -> datetime:
        offset, wrong_by = self._times.get()
        return super().now() + offset + wrong_by

    def monotonic(self) -> float:
        return super().monotonic() + self._times.get()[0].total_seconds()


class Replica:
    """One replica.

    Args:
        config: Its configuration, alone in its folder with what it writes.

    Attributes:
        times: Its clock.
        wrong_by: What its clock is wrong by.
    """

    def __init__(self, config: Path, address: str) -> None:
        self.address = address
        self.wrong_by = timedelta()
        self.times = Times(config.with_suffix(".times"))
        self._config = config
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start it, and return when it listens."""
        with self._log.open("ab") as log:
            self._process = process = await asyncio.to_thread(self._run, log)
        if process.stdout is None or not await asyncio.wait_for(
            asyncio.to_thread(process.stdout.readline), _START_SECONDS
        ):
            raise RuntimeError(f"a replica did not start; its log ends with:\n{self.log_tail()}")

    def _run(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak.replica", str(self._config)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-40:])

    def stopped_by_itself(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


async def _serve(config: Path) -> None:
    settings = load_settings(config, SETTINGS, {})
    logs.configure(settings.log.level, settings.log.format)
    app = await App.start(settings, FollowingClock(Times(config.with_suffix(".times"))))
    os.write(1, b"ready\n")
    await app.wait()


def _end_with_parent() -> None:
    """Die when the parent is gone: it holds the only writing end of standard input."""
    import threading

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    asyncio.run(_serve(Path(sys.argv[1])))
