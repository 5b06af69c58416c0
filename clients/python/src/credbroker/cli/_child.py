"""Running a command as if it had been run directly: signals go to it, its exit code comes back."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Self

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127

_PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


class Signals:
    """Takes the signals that are meant for the command.

    Before there is a command, a signal ends the program in good order; while it
    runs, they are passed on; afterwards they change nothing any more, so that
    its credentials are revoked in peace.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._early: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _PASSED_ON:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in _PASSED_ON:
            signal.signal(number, self._before[number])  # type: ignore[arg-type]  # as signal.signal gave it

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the command to its end and return its exit code, as a shell would."""
        self._starting = True
        try:
            child = subprocess.Popen(command, env=environment)  # noqa: S603 - the caller's own command
        except FileNotFoundError:
            return not_found(command[0])
        except OSError as error:
            sys.stderr.write(f"credbroker: {command[0]}: {error.strerror}\n")
            return _NOT_EXECUTABLE
        self._child = child
        for number in self._early:
            child.send_signal(number)
        code = child.wait()
        return 128 - code if code < 0 else code

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._starting:
            raise SystemExit(128 + number)
        # While the command is being started, the terminal's signal is taken to
        # have reached it: in doubt it is better lost, and typed again, than
        # delivered twice.
        if _sent_by_terminal(number):
            return
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


def not_found(name: str) -> int:
    """Tell that there is no such command and return the exit code for it."""
    sys.stderr.write(f"credbroker: {name}: command not found\n")
    return _NOT_FOUND


def _sent_by_terminal(number: int) -> bool:
    """Whether the command has got the signal already, as part of the terminal's foreground group."""
    if number not in (signal.SIGINT, getattr(signal, "SIGQUIT", None)):
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
