import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.dev.processes import ManagedProcess, free_port
from broker.errors import Unavailable

SERVE = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start(tmp_path: Path, program: str, timeout: float = 10) -> ManagedProcess:
    log = tmp_path / "log"
    return ManagedProcess.start(
        "server",
        [sys.executable, "-c", program],
        log=log,
        ready=lambda: "up" in log.read_text(),
        timeout=timeout,
    )


def test_is_returned_when_ready_and_stopped_by_its_signal(tmp_path: Path) -> None:
    process = start(tmp_path, SERVE)
    running = process.running
    process.stop()
    assert (running, process.running) == (True, False)
    assert not alive(process.pid)


def test_a_server_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN)
    process.stop(timeout=0.1)
    assert not alive(process.pid)


def test_an_early_end_shows_exit_code_and_log(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"(?s)server ended with exit code 3.*no such setting"):
        start(tmp_path, "import sys; print('no such setting'); sys.exit(3)")


def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"was not ready within 0\.5 seconds"):
        start(
            tmp_path,
            f"import os, signal; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); signal.pause()",
            timeout=0.5,
        )
    assert not alive(int((tmp_path / "pid").read_text()))


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    with start(tmp_path, SERVE) as process:
        process.stop()
    assert not process.running


def test_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import signal, sys
from pathlib import Path
from broker.dev.processes import ManagedProcess
log = Path({str(tmp_path / "log")!r})
process = ManagedProcess.start(
    "server", [sys.executable, "-c", {SERVE!r}], log=log, ready=lambda: "up" in log.read_text()
)
print(process.pid, flush=True)
signal.pause()
""",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        if parent.stdout is None:
            raise RuntimeError("no pipe")
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    assert wait_for(lambda: not alive(child))


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
