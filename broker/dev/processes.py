"""Child processes of the development stack: started, watched until ready, stopped by pid."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from broker.errors import Unavailable

LEFTOVER_SECONDS = 15.0
"""How long to wait for what a killed parent left behind: it needs a moment to notice that and end."""

_POLL_SECONDS = 0.02
_TAIL_BYTES = 4096
# Ends the child when its parent is gone, however the parent died: the parent
# holds the only writing end of the guard's standard input.
_GUARD = 'read -r _; kill -s "$1" "$2"'


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ManagedProcess:
    """A server run as a child process, with its output in a file."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path, stop_signal: signal.Signals) -> None:
        self._name = name
        self._child = child
        self._log = log
        self._stop_signal = stop_signal
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", stop_signal.name.removeprefix("SIG"), str(child.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        ready: Callable[[], bool],
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> "ManagedProcess":
        """Start a child and wait until it is ready.

        Args:
            name: What to call it in errors.
            argv: Program and arguments.
            log: File that its output is appended to.
            ready: Called again and again until it returns True.
            timeout: Seconds it may take to become ready.
            env: Its whole environment; the parent's by default.
            cwd: Its working directory.
            user: Who to run as, for servers that refuse to run as root.
            group: The one group to run with, beside ``user``.
            stop_signal: What asks it to end.

        Raises:
            Unavailable: when it ends or is not ready in time; says how its
                log ends. Nothing is left running.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=None if group is None else (),
                # Its own session, so that Ctrl-C in a terminal reaches the
                # parent alone, which stops its children in order.
                start_new_session=True,
            )
        process = cls(name, child, log, stop_signal)
        try:
            process.wait_until(ready, timeout)
        except BaseException:
            process.stop()
            raise
        return process

    def wait_until(self, ready: Callable[[], bool], timeout: float = 30) -> None:
        """Wait until a condition holds.

        Args:
            ready: The condition, asked again and again.
            timeout: Seconds it may take.

        Raises:
            Unavailable: when the child ends or the time is over; says how its
                log ends.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {timeout:g} seconds")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._child.wait(_POLL_SECONDS)
                raise self._failure(f"ended with exit code {code} before it was ready")

    def _failure(self, what: str) -> Unavailable:
        text = f"{self._name} {what}; its log {self._log} ends with:\n{self.log_tail()}"
        return Unavailable(text, message=text)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended."""
        return self._child.poll() is None

    def log_tail(self) -> str:
        """Return the last lines of its output."""
        with self._log.open("rb") as stream:
            stream.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            return stream.read(_TAIL_BYTES).decode(errors="replace")

    def stop(self, timeout: float = 10) -> None:
        """Ask the child to end, and kill it after that many seconds."""
        self._end_guard()
        if self.running:
            self._child.send_signal(self._stop_signal)
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the child at once, as a crash would."""
        self._end_guard()
        self._child.kill()
        self._child.wait()

    def _end_guard(self) -> None:
        # Killed before its standard input is closed: it must not act any more.
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def __enter__(self) -> "ManagedProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
