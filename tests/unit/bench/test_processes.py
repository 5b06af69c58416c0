"""What the kernel counts for a process and its descendants."""

import os
import subprocess
import sys
import time

from tests.bench import processes

_BUSY = (
    "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done', flush=True)\n"
)
_PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {_BUSY + "input()"!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
child.stdin.write(b"end\\n"); child.stdin.flush(); child.wait()
print("reaped", flush=True)
input()
"""


def test_descendants_count_alive_and_reaped() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert list(processes.tree(parent.pid)) == [parent.pid, child]
        alive = processes.processor_time(parent.pid)
        held = processes.memory(parent.pid)
        parent.stdin.write("\n")
        parent.stdout.readline()
        assert list(processes.tree(parent.pid)) == [parent.pid]
        reaped = processes.processor_time(parent.pid)
        parent.stdin.write("\n")

    # The kernel tells whole ticks of 10 ms: of two processes, in and outside of the kernel.
    assert alive >= 0.26
    assert reaped >= alive
    assert len(held) == 2
    assert all(0 < one.proportional <= one.resident for one in held)


def test_a_process_that_is_gone_holds_nothing() -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()

    assert processes.processor_time(gone.pid) == 0
    assert processes.memory(gone.pid) == []


def test_this_process_runs() -> None:
    before, end = processes.processor_time(os.getpid()), time.process_time() + 0.1
    while time.process_time() < end:
        pass

    assert processes.processor_time(os.getpid()) - before >= 0.08
