import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import credbroker
import pytest

from broker.dev.home import Ports, choose_ports, occupied
from broker.errors import Unavailable

BROKER = Path(sys.executable).with_name("broker")
SECONDS = 60


@contextmanager
def development(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `broker dev` until it has said what to type next; gives that, too."""
    process = subprocess.Popen(
        [BROKER, "dev", "--data", str(folder)],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, read_until(process, "  broker tasks list")
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=SECONDS)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if text in line:
            return told
    raise AssertionError(f"`broker dev` ended:\n{told}")


def variables(folder: Path, who: str) -> dict[str, str]:
    """Return what a shell gets from one of the files that are offered to it."""
    found = re.findall(r"^export (\w+)='?([^'\n]*)'?$", (folder / f"{who}.env").read_text(), re.MULTILINE)
    return {str(name): str(value) for name, value in found}


def broker(*words: str, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [BROKER, *words], env={**os.environ, **environ}, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def use_a_credential(environ: Mapping[str, str]) -> str:
    """Get a credential as the agent and return its issuance."""
    with (
        credbroker.Client(
            environ["CREDBROKER_ADDRESS"],
            token_file=environ["CREDBROKER_TOKEN_FILE"],
            ca_file=environ["CREDBROKER_CA_FILE"],
        ) as client,
        client.task("try it out") as task,
    ):
        credential = task.credential("reports-db", role="reports-reader")
        assert credential["username"]
        return credential.issuance_id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data that the runs of these tests share: starting on it is faster than on none."""
    return tmp_path_factory.mktemp("development") / "data"


@pytest.mark.long
def test_a_stack_is_kept_for_the_next_run_even_when_it_was_killed(folder: Path) -> None:
    with development(folder) as (first, _):
        issuance = use_a_credential(variables(folder, "agent"))
        scopes = folder / "scopes"
        assert broker("scopes", "apply", str(scopes), environ=variables(folder, "admin")) == "nothing to change\n"
        changed = (scopes / "reports-db.yaml").read_text().replace("default: 5m", "default: 6m")
        (scopes / "reports-db.yaml").write_text(changed)
        broker("scopes", "apply", "--yes", str(scopes), environ=variables(folder, "admin"))
        first.kill()
        first.wait()
    before = variables(folder, "admin")
    with development(folder) as (second, _):
        assert variables(folder, "admin")["CREDBROKER_ADDRESS"] == before["CREDBROKER_ADDRESS"]
        found = json.loads(broker("scopes", "list", "-o", "json", environ=variables(folder, "admin")))
        versions = {scope["name"]: scope["version"] for scope in found}
        assert versions == {"payments-admin": "1", "reports-db": "2", "reports-secret": "1"}
        shown = broker("issuances", "show", issuance, "-o", "json", environ=variables(folder, "auditor"))
        assert json.loads(shown)["issuance"]["revocation"] == "REVOCATION_STATE_CONFIRMED"
        use_a_credential(variables(folder, "agent"))
        second.send_signal(signal.SIGINT)
        assert second.wait(SECONDS) == 0


def test_what_is_told_works_until_a_server_ends_by_itself(folder: Path) -> None:
    with development(folder) as (process, told):
        commands = [line.removeprefix("  ") for line in told.splitlines() if re.match(r"  \S|    sh ", line)]
        script = "\n".join(("set -eu", *commands))
        environ = {**os.environ, "PATH": f"{BROKER.parent}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        for line in (
            r"payments-admin +1 +vault_token .*Change the secrets",
            r"payments-admin version 1 would be refused \(SCOPE_DENIED\)",
            r"export VAULT_TOKEN=.*",
            r"I am v-token-.*",
            r"…[0-9a-f]{8} .* reports-db +(active|revoked) .*",
        ):
            assert re.search(line, done.stdout), f"{line} is not in:\n{done.stdout}"
        postmaster = int((folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        rest, _ = process.communicate(timeout=SECONDS)
        assert "✗ PostgreSQL has ended by itself; its log is in" in rest
        assert process.returncode == 1


def test_a_folder_is_for_one_stack_at_a_time(tmp_path: Path) -> None:
    with occupied(tmp_path / "data"):
        done = subprocess.run(
            [BROKER, "dev", "--data", str(tmp_path / "data")], capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 1
        assert "another development stack runs in" in done.stdout
    with occupied(tmp_path / "data"):
        pass


def test_ports_stay_the_same_unless_somebody_else_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.dev.home.LEFTOVER_SECONDS", 0.1)
    first = choose_ports(tmp_path)
    assert len({getattr(first, name) for name in Ports.__slots__}) == 5
    assert choose_ports(tmp_path) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.bearer))
        other.listen()
        second = choose_ports(tmp_path)
    assert second.bearer != first.bearer
    assert (second.openbao, second.mutual) == (first.openbao, first.mutual)


def test_a_broken_list_of_ports_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    assert choose_ports(tmp_path) == choose_ports(tmp_path)


def test_locks_are_released_when_what_they_guard_fails(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="on purpose"), occupied(tmp_path):
        raise Unavailable("on purpose")
    with occupied(tmp_path):
        pass
