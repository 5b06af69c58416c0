"""The command: what it prints, what the command it runs sees, and that nothing stays behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from credbroker.cli import main
from credbroker.cli._child import Signals
from credbroker.v1 import task_pb2
from credbroker.v1.credential_service_pb2 import IssueCredentialRequest

from broker.dev.pki import DevAuthority
from broker.errors import Locked, ParametersInvalid, VaultUnavailable
from tests.contract.client.conftest import until
from tests.fakes.broker import DEFAULT_TOKEN, FakeBroker, FakeScope, Hold, Refuse

COMMAND = [sys.executable, "-m", "credbroker"]
SHOW = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"


@pytest.fixture
def environment(broker: FakeBroker, ca_file: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "CREDBROKER_ADDRESS": broker.address,
        "CREDBROKER_CA_FILE": str(ca_file),
        "CREDBROKER_TOKEN": DEFAULT_TOKEN,
    }


@pytest.fixture
def run(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as ending:
            code = int(ending.code or 0)
        return code, *capfd.readouterr()

    return call


Run = Callable[..., tuple[int, str, str]]


def states(broker: FakeBroker) -> list[int]:
    return [task.state for task in broker.tasks.values()]


def test_issue_prints_exports_and_leaves_the_task_open(run: Run, broker: FakeBroker) -> None:
    code, out, err = run("issue", "vault", "--purpose", "look around", "--ttl", "2m", "--label", "env=prod")
    assert code == 0
    assert out == (
        "export VAULT_TOKEN=secret-1\nexport VAULT_ADDR=https://vault.test:8200\nexport VAULT_NAMESPACE=agents\n"
    )
    (task,) = broker.tasks.values()
    assert task.state == task_pb2.TASK_STATE_ACTIVE
    assert (task.purpose, dict(task.labels)) == ("look around", {"env": "prod"})
    assert task.deadline.ToDatetime() - task.create_time.ToDatetime() == timedelta(minutes=2)
    assert f"credbroker complete {task.id}" in err
    assert run("complete", task.id) == (0, "", "")
    assert states(broker) == [task_pb2.TASK_STATE_COMPLETED]
    assert broker.live() == []


def test_issue_quotes_for_the_shell(run: Run, broker: FakeBroker, environment: dict[str, str]) -> None:
    odd = 'a\'b $(touch x) `c`\n"d"'
    broker.scopes["reports-db"] = FakeScope(data={"user name": odd, "port": 5432, "tags": ["x", None]})
    _, out, _ = run("issue", "reports-db", "--purpose", "p")
    script = f"{out}\nexec {shlex.quote(sys.executable)} -c {shlex.quote(SHOW)}"
    seen = json.loads(subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout)
    assert seen["REPORTS_DB_USER_NAME"] == odd
    assert seen["REPORTS_DB_PORT"] == "5432"
    assert seen["REPORTS_DB_TAGS"] == '["x", null]'
    assert seen["REPORTS_DB_PASSWORD"] == "secret-1"


def test_issue_as_json(run: Run, broker: FakeBroker) -> None:
    code, out, _ = run("issue", "db", "--purpose", "p", "--output", "json", "--param", "role=ro", "--param", "n:=3")
    facts = json.loads(out)
    assert code == 0
    assert facts["data"] == {"username": "u", "port": 5432, "password": "secret-1"}
    assert facts["task_id"] in broker.tasks
    assert facts["issuance_id"] in broker.issuances
    assert (facts["scope"], facts["kind"], facts["renewable"]) == ("db", "leased", False)
    assert facts["revocability"] == "individual"
    assert facts["expires_at"] < facts["max_expires_at"]
    (request,) = broker.requests(IssueCredentialRequest)
    assert dict(request.parameters) == {"role": "ro", "n": 3}
    assert not request.new_task.HasField("timeout")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vault", "--output", "raw"], "secret-1\n"),
        (["vault", "--field", "vault_address"], "https://vault.test:8200\n"),
        (["db", "--field", "port"], "5432\n"),
        (["--prefix", "PG_", "db"], "export PG_PASSWORD=secret-1\nexport PG_PORT=5432\nexport PG_USERNAME=u\n"),
        (["vault", "--env", "T=token"], "export T=secret-1\n"),
    ],
)
def test_issue_prints_what_is_wanted(run: Run, arguments: list[str], expected: str) -> None:
    assert run("issue", *arguments, "--purpose", "p")[:2] == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["db", "--output", "raw"], "db: choose a value with --field: password, port, username"),
        (["db", "--field", "token"], "db: there is no token; there are: password, port, username"),
        (["db", "--env", "CREDBROKER_TOKEN=password"], "db: CREDBROKER_TOKEN has its own meaning"),
        (["twins"], "twins: two values would be TWINS_A_B; name them with --env"),
        (["nul"], "nul: bad cannot be an environment variable"),
        (["credbroker"], "CREDBROKER_PASSWORD has its own meaning"),
    ],
)
def test_issue_that_cannot_be_printed_leaves_nothing_open(
    run: Run, broker: FakeBroker, arguments: list[str], complaint: str
) -> None:
    broker.scopes["twins"] = FakeScope(data={"a-b": "1", "a_b": "2"})
    broker.scopes["nul"] = FakeScope(data={"bad": "a\0b"})
    broker.scopes["credbroker"] = FakeScope(data={})
    code, out, err = run("issue", *arguments, "--purpose", "p")
    assert (code, out) == (1, "")
    assert complaint in err
    assert states(broker) == [task_pb2.TASK_STATE_COMPLETED]


def test_a_refusal_is_told(run: Run, broker: FakeBroker) -> None:
    broker.script("IssueCredential", Refuse(Locked()), Refuse(ParametersInvalid()))
    assert run("issue", "vault", "--purpose", "p") == (
        1,
        "",
        "credbroker: an admin's lock is in force; ask your admins [LOCKED]\n",
    )
    code, _, err = run("exec", "--scope", "vault", "--purpose", "p", "--", "true")
    assert code == 125
    assert "PARAMETERS_INVALID" in err


def test_misconfiguration_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDBROKER_TOKEN")
    code, _, err = run("issue", "vault", "--purpose", "p")
    assert code == 1
    assert "no evidence of identity" in err


def test_retries_are_told_when_asked_for(run: Run, broker: FakeBroker) -> None:
    assert "trying again" not in run("issue", "vault", "--purpose", "p")[2]
    code, _, err = run("issue", "vault", "--purpose", "p", "-v", "--address", "127.0.0.1:1", "--wait", "1s")
    assert code == 1
    assert "trying again" in err


def test_options_for_the_connection(
    run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: DevAuthority
) -> None:
    for name in ("CREDBROKER_ADDRESS", "CREDBROKER_CA_FILE", "CREDBROKER_TOKEN"):
        monkeypatch.delenv(name)
    certificate, key = authority.issue(spiffe_id="spiffe://example.test/cli")
    files = {"ca": authority.certificate_pem, "cert": certificate, "key": key, "token": DEFAULT_TOKEN.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    common = ["--purpose", "p", "--ca-file", str(tmp_path / "ca")]
    bearer = ["--address", broker.address, "--token-file", str(tmp_path / "token")]
    mutual = ["--address", broker.mutual_address, "--cert-file", str(tmp_path / "cert")]
    assert run("issue", "vault", *common, *bearer)[0] == 0
    assert run("issue", "vault", *common, *mutual, "--key-file", str(tmp_path / "key"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: COMMAND"),
        (["issue", "--purpose", "p"], "required: SCOPE"),
        (["issue", "vault"], "required: --purpose"),
        (["issue", "vault", "--purpose", "p", "--ttl", "5"], "--ttl: must be a duration such as 90s, 15m or 2h"),
        (["issue", "vault", "--purpose", "p", "--ttl", "0s"], "--ttl: must be a duration"),
        (["issue", "vault", "--purpose", "p", "--param", "x"], "--param: must be NAME=VALUE"),
        (["issue", "vault", "--purpose", "p", "--param", "x:={"], "--param: x:= must be followed by JSON"),
        (["issue", "vault", "--purpose", "p", "--param", "x:=NaN"], "--param: x: must be finite"),
        (["issue", "vault", "--purpose", "p", "--param", "x=1", "--param", "x=2"], "--param: x is given twice"),
        (["issue", "vault", "--purpose", "p", "--env", "A B=x"], "--env: must be a name"),
        (["issue", "vault", "--purpose", "p", "--label", "=x"], "--label: must be NAME=VALUE"),
        (["exec", "--purpose", "p", "--", "true"], "name at least one --scope"),
        (["exec", "--purpose", "p", "--scope", "vault"], "give the command after --"),
        (["exec", "--purpose", "p", "--scope", "vault", "--"], "give the command after --"),
        (["exec", "--param", "a=b", "--scope", "vault", "--purpose", "p", "--", "true"], "goes after the --scope"),
        (
            ["exec", "--scope", "vault", "--purpose", "p", "--timeout", "x"],
            "--timeout: must be a duration",
        ),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_sent(
    run: Run, broker: FakeBroker, arguments: list[str], complaint: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert broker.calls == []


@pytest.mark.parametrize("command", ["issue", "exec", "complete"])
def test_help_teaches(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"credbroker {command} " in out
    assert "CREDBROKER_ADDRESS" in out
    assert "never taken from an option" in out


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("credbroker 0.")


def test_exec_gives_the_command_its_credentials_and_nothing_else(run: Run, broker: FakeBroker) -> None:
    code, out, err = run(
        *["exec", "--scope", "vault", "--scope", "db", "--param", "role=ro", "--ttl", "90s"],
        *["--scope", "db", "--env", "PGPASSWORD=password", "--purpose", "p", "--timeout", "1h"],
        *["--", sys.executable, "-c", SHOW],
    )
    seen = json.loads(out)
    assert (code, err) == (0, "")
    assert seen["VAULT_TOKEN"] == "secret-1"
    assert seen["VAULT_ADDR"] == "https://vault.test:8200"
    assert seen["VAULT_NAMESPACE"] == "agents"
    assert seen["DB_USERNAME"] == "u"
    assert seen["DB_PASSWORD"] == "secret-2"
    assert seen["PGPASSWORD"] == "secret-3"
    assert "CREDBROKER_TOKEN" not in seen
    assert seen["CREDBROKER_ADDRESS"] == broker.address
    first, second, _ = broker.requests(IssueCredentialRequest)
    assert dict(second.parameters) == {"role": "ro"}
    assert second.ttl.ToTimedelta() == timedelta(seconds=90)
    assert not first.HasField("ttl")
    assert first.new_task.heartbeat_interval.ToTimedelta() == timedelta(seconds=60)
    assert first.new_task.timeout.ToTimedelta() == timedelta(hours=1)
    assert states(broker) == [task_pb2.TASK_STATE_COMPLETED]


def test_exec_without_a_vault_namespace_sets_none(run: Run, broker: FakeBroker, monkeypatch: Any) -> None:
    issue = broker.issue

    def in_root_namespace(request: Any) -> Any:
        response = issue(request)
        response.credential.vault_token.vault_namespace = ""
        return response

    monkeypatch.setattr(broker, "issue", in_root_namespace)
    _, out, _ = run("exec", "--scope", "vault", "--purpose", "p", "--", sys.executable, "-c", SHOW)
    assert "VAULT_NAMESPACE" not in json.loads(out)


def test_exec_refuses_to_overwrite_one_credential_with_another(run: Run, broker: FakeBroker) -> None:
    code, _, err = run("exec", "--scope", "vault", "--scope", "vault", "--purpose", "p", "--", "true")
    assert code == 125
    assert "two scopes would set VAULT_ADDR" in err
    assert broker.live() == []


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exec_answers_with_the_commands_exit_code(run: Run, broker: FakeBroker, code: int) -> None:
    assert run("exec", "--scope", "vault", "--purpose", "p", "--", "/bin/sh", "-c", f"exit {code}") == (code, "", "")
    assert broker.live() == []


def test_exec_answers_like_a_shell_when_the_command_is_killed(run: Run) -> None:
    code, _, _ = run("exec", "--scope", "vault", "--purpose", "p", "--", "/bin/sh", "-c", "kill -KILL $$")
    assert code == 128 + signal.SIGKILL


def test_exec_of_what_is_not_there_asks_for_nothing(run: Run, broker: FakeBroker) -> None:
    code, _, err = run("exec", "--scope", "vault", "--purpose", "p", "--", "no-such-command-here")
    assert code == 127
    assert "no-such-command-here: command not found" in err
    assert broker.calls == []


def test_exec_of_what_cannot_run(run: Run, broker: FakeBroker, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("neither a script nor a program")
    broken.chmod(0o755)
    code, _, err = run("exec", "--scope", "vault", "--purpose", "p", "--", str(broken))
    assert code == 126
    assert "broken: Exec format error" in err
    lost = tmp_path / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)
    assert run("exec", "--scope", "vault", "--purpose", "p", "--", str(lost))[0] == 127
    assert broker.live() == []


def test_exec_renews_what_can_be_renewed_until_its_maximum(run: Run, broker: FakeBroker) -> None:
    broker.scopes["db"] = FakeScope(data={}, renewable=True, ttl=timedelta(seconds=1.2), max_ttl=timedelta(seconds=2.5))
    code, _, err = run("exec", "--scope", "db", "--purpose", "p", "--", "sleep", "2.7")
    assert code == 0
    assert broker.count("RenewCredential") == 2
    assert "its maximum" in err


def test_exec_renews_when_the_broker_is_back(run: Run, broker: FakeBroker) -> None:
    broker.scopes["db"] = FakeScope(data={}, renewable=True, ttl=timedelta(seconds=3))
    broker.script("RenewCredential", *[Refuse(VaultUnavailable(retry_after=timedelta(hours=1)))])
    script = "trap 'exit 0' TERM; while :; do sleep 0.05; done"

    def end() -> None:
        broker.wait_for("RenewCredential", 2)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    code, _, err = run("exec", "--scope", "db", "--purpose", "p", "--", "/bin/sh", "-c", script)
    ending.join()
    assert code == 0
    assert "not renewed yet" in err


def test_exec_tells_when_it_cannot_renew(run: Run, broker: FakeBroker) -> None:
    broker.scopes["db"] = FakeScope(data={}, renewable=True, ttl=timedelta(seconds=2))
    broker.script("RenewCredential", Refuse(Locked()))
    code, _, err = run("exec", "--scope", "db", "--purpose", "p", "--", "sleep", "1.5")
    assert code == 0
    assert "db: works until" in err
    assert "LOCKED" in err


def test_exec_hands_a_signal_on_while_the_command_runs(run: Run, broker: FakeBroker) -> None:
    script = "trap 'exit 9' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done"
    assert run("exec", "--scope", "vault", "--purpose", "p", "--", "/bin/sh", "-c", script)[0] == 9
    assert broker.live() == []


def test_a_signal_while_credentials_are_asked_for(run: Run, broker: FakeBroker) -> None:
    held = Hold()
    broker.script("IssueCredential", held)

    def interrupt() -> None:
        held.arrived.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)
        held.release.set()

    before = signal.getsignal(signal.SIGTERM)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    code, out, _ = run("exec", "--scope", "vault", "--purpose", "p", "--", "echo", "ran")
    interrupting.join()
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert signal.getsignal(signal.SIGTERM) == before
    assert broker.live() == []


def test_a_signal_while_the_command_is_started_reaches_it() -> None:
    with Signals() as signals:
        signals._starting = True
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.run(["/bin/sh", "-c", "sleep 20"], dict(os.environ)) == 128 + signal.SIGUSR2


WAIT_FOR_INTERRUPTS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", flush=True)
signal.sigwait({signal.SIGINT})
print("caught", flush=True)
input()
print("twice" if signal.SIGINT in signal.sigpending() else "once", flush=True)
"""


def test_the_terminals_interrupt_reaches_the_command_once(environment: dict[str, str], broker: FakeBroker) -> None:
    ours, theirs = os.openpty()
    command = [*COMMAND, "exec", "--scope", "vault", "--purpose", "p", "--", sys.executable, "-c", WAIT_FOR_INTERRUPTS]
    process = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.login_tty(theirs))
    os.close(theirs)
    read_until(ours, b"ready")
    os.write(ours, b"\x03")
    read_until(ours, b"caught")
    os.write(ours, b"\n")
    assert b"once" in read_until(ours, b"ce\r\n")
    assert process.wait(20) == 0
    os.close(ours)
    assert broker.live() == []


def read_until(terminal: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        seen += os.read(terminal, 1024)
    return seen


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_exec_passes_signals_on(environment: dict[str, str], broker: FakeBroker, number: signal.Signals) -> None:
    trap = f"trap 'echo caught; exit 7' {number.name[3:]}; echo ready; while :; do read -t 1 line || sleep 0.01; done"
    process = start(environment, "exec", "--scope", "vault", "--purpose", "p", "--", "/bin/bash", "-c", trap)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(20) == 7
    assert states(broker) == [task_pb2.TASK_STATE_COMPLETED]
    assert broker.live() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_command_runs_ends_in_good_order(
    environment: dict[str, str], broker: FakeBroker, number: signal.Signals
) -> None:
    held = Hold()
    broker.script("IssueCredential", held)
    with start(environment, "exec", "--scope", "vault", "--purpose", "p", "--", "echo", "ran") as process:
        assert held.arrived.wait(60)
        process.send_signal(number)
        held.release.set()
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert out == b""
    until(lambda: broker.live() == [] and states(broker) == [task_pb2.TASK_STATE_COMPLETED])


def test_issue_interrupted_leaves_nothing_open(environment: dict[str, str], broker: FakeBroker) -> None:
    held = Hold()
    broker.script("IssueCredential", held)
    with start(environment, "issue", "vault", "--purpose", "p") as process:
        assert held.arrived.wait(60)
        process.send_signal(signal.SIGINT)
        held.release.set()
        process.communicate(timeout=30)
        assert process.returncode == 130
    until(lambda: broker.live() == [])


def test_issue_to_a_reader_that_has_gone_leaves_nothing_open(environment: dict[str, str], broker: FakeBroker) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*COMMAND, "issue", "vault", "--purpose", "p"]
    done = subprocess.run(arguments, env=environment, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert b"gone away" in done.stderr
    assert broker.live() == []


def test_the_installed_command(environment: dict[str, str]) -> None:
    command = Path(sys.executable).with_name("credbroker")
    done = subprocess.run([command, "--help"], env=environment, capture_output=True, check=True)
    assert b"credentials that die with it" in done.stdout
