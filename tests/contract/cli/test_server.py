import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2

from broker.dev.pki import DevAuthority
from tests.contract.cli.conftest import Command

BROKER = Path(sys.executable).with_name("broker")
PASSWORD = "do-not-show-me"
SECONDS = 30


@pytest.fixture
def config(tmp_path: Path, authority: DevAuthority) -> Path:
    """A configuration that is right, for a Vault that is away."""
    certificate, key = authority.issue(addresses=["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    (tmp_path / "bundle.pem").write_bytes(authority.certificate_pem)
    (tmp_path / "vault-token").write_text("s.token")
    (tmp_path / "fingerprint.key").write_bytes(os.urandom(32))
    tls = {"certificate": "server.pem", "private_key": "server.key"}
    return write(
        tmp_path / "broker.yaml",
        {
            "listen": {name: {"address": "127.0.0.1:0", "tls": tls} for name in ("bearer", "mutual")},
            "database": {"url": f"sqlite:///{tmp_path / 'broker.db'}"},
            "vault": {
                "address": "https://127.0.0.1:1",
                "auth": {"kind": "token_file", "file": "vault-token"},
                "timeout": "1s",
            },
            "attestors": [
                {
                    "kind": "x509_svid",
                    "name": "workloads",
                    "trust_domain": "example.test",
                    "bundle": {"file": "bundle.pem"},
                }
            ],
            "access": {"admin": [{"spiffeId": "spiffe://example.test/admins/*"}]},
            "fingerprint_key_file": "fingerprint.key",
        },
    )


def write(file: Path, settings: object) -> Path:
    # JSON is YAML, too.
    file.write_text(json.dumps(settings))
    return file


def changed(file: Path, **sections: object) -> str:
    return str(write(file, {**json.loads(file.read_text()), **sections}))


def test_a_right_configuration_is_summed_up_without_secrets(broker: Command, config: Path) -> None:
    database = {"url": f"postgresql+psycopg://credbroker:{PASSWORD}@db.test/credbroker"}
    shown = broker("config", "check", "--config", changed(config, database=database)).stdout
    assert shown.splitlines() == [
        "the configuration is valid",
        "  listens    bearer on 127.0.0.1:0, mutual on 127.0.0.1:0",
        "  database   postgresql+psycopg",
        "  vault      https://127.0.0.1:1",
        "  attestors  workloads (x509_svid)",
        "  roles      admin (1)",
    ]


def test_every_problem_is_told_with_its_place(broker: Command, config: Path) -> None:
    file = changed(config, tasks={"default_timeout": "soon"}, vault={"address": "ftp://x"}, colour="red")
    refused = broker("config", "check", "--config", file, expect=2)
    assert refused.stdout == ""
    lines = refused.stderr.splitlines()
    assert f"  {file}: tasks.default_timeout: must be a duration such as 90s, 15m or 2h" in lines
    for place in ("vault.address", "vault.auth", "colour"):
        assert any(line.startswith(f"  {file}: {place}: ") for line in lines), lines


def test_files_that_are_missing_or_wrong_are_told(broker: Command, config: Path) -> None:
    (config.parent / "server.key").unlink()
    (config.parent / "fingerprint.key").write_bytes(b"short")
    (config.parent / "vault-token").write_bytes(b"")
    told = broker("config", "check", "--config", str(config), expect=2).stderr
    folder = config.parent
    for problem in (
        f"listen.bearer.tls.private_key: {folder}/server.key cannot be read: No such file or directory",
        f"vault.auth.file: {folder}/vault-token is empty",
        f"fingerprint_key_file: {folder}/fingerprint.key must hold at least 32 random bytes",
    ):
        assert f"  {config}: {problem}" in told.splitlines()
    (config.parent / "server.key").write_text("x")
    (config.parent / "vault-token").write_text("x")
    (config.parent / "fingerprint.key").write_bytes(os.urandom(32))
    (config.parent / "bundle.pem").write_text("no certificate")
    assert "bundle.pem" in broker("config", "check", "--config", str(config), expect=2).stderr


def test_a_configuration_that_is_not_there(broker: Command, tmp_path: Path) -> None:
    for words in (("config", "check"), ("serve",), ("db", "upgrade"), ("db", "check")):
        told = broker(*words, "--config", str(tmp_path / "nowhere.yaml"), expect=2).stderr
        assert told == f"error: {tmp_path}/nowhere.yaml: cannot be read: No such file or directory (CONFIG_INVALID)\n"


def test_the_database_is_upgraded_once(broker: Command, config: Path) -> None:
    told = broker("db", "check", "--config", str(config), expect=1).stderr
    assert told.startswith("error: the database is at revision none, the newest is ")
    assert told.endswith(" - run `broker db upgrade`\n")
    assert broker("db", "upgrade", "--config", str(config)).stdout.startswith("upgraded the database to revision ")
    assert broker("db", "upgrade", "--config", str(config)).stdout.startswith("the database is at revision ")
    assert broker("db", "check", "--config", str(config)).stdout.startswith("the database is at the newest revision, ")


@contextmanager
def serving(config: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([BROKER, "serve", "--config", str(config), *options], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_log(process: subprocess.Popen[str], event: str) -> dict[str, str]:
    assert process.stderr is not None
    for line in process.stderr:
        found: dict[str, str] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"{event!r} was never logged")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_where_it_listens_and_ends_when_asked(
    number: signal.Signals, broker: Command, config: Path, authority: DevAuthority
) -> None:
    broker("db", "upgrade", "--config", str(config))
    with serving(config) as process:
        addresses = read_log(process, "started")
        credentials = grpc.ssl_channel_credentials(authority.certificate_pem)
        with grpc.secure_channel(addresses["bearer"], credentials) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            reply = check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(number)
        read_log(process, "ended")
        assert process.wait(SECONDS) == 0


def test_threads_of_a_server_do_not_interrupt_one_another(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    with serving(config) as process:
        read_log(process, "started")
        threads = [int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir()]
        assert len(threads) > 2
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_a_server_does_not_start_on_a_database_that_is_not_upgraded(config: Path) -> None:
    with serving(config) as process:
        _, told = process.communicate(timeout=SECONDS)
        assert process.returncode == 1
        assert "(STORE_UNAVAILABLE) - `broker db check` says what is wrong with the database" in told


def test_a_server_does_not_start_with_a_certificate_that_is_none(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    (config.parent / "server.pem").write_text("no certificate")
    with serving(config) as process:
        _, told = process.communicate(timeout=SECONDS)
        assert process.returncode == 2
        assert "server.pem" in told


@pytest.mark.long
def test_workers_share_the_addresses_and_end_together(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    changed(config, metrics={"address": "127.0.0.1:0"})
    with serving(config, "--workers", "2") as process:
        given = read_log(process, "starting workers")
        started = [read_log(process, "started") for _ in range(2)]
        assert {worker["bearer"] for worker in started} == {given["bearer"]}
        assert len({worker["replica"] for worker in started}) == 2
        assert not any("metrics" in worker for worker in started)
        with urlopen(f"http://{given['metrics']}/metrics", timeout=SECONDS) as reply:
            assert b"\ncredbroker_ready 0.0\n" in reply.read()
        process.send_signal(signal.SIGTERM)
        assert {str(read_log(process, "a worker has ended")["exit_code"]) for _ in range(2)} == {"0"}
        read_log(process, "ended")
        assert process.wait(SECONDS) == 0


@pytest.mark.long
def test_workers_end_when_the_supervisor_is_killed(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    with serving(config, "--workers", "2") as process:
        workers = [int(read_log(process, "started a worker")["pid"]) for _ in range(2)]
        for _ in range(2):
            read_log(process, "started")
        process.kill()
        try:
            # Until the end of the file: nobody holds the other end any more.
            _, told = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            raise
        assert [json.loads(line)["event"] for line in told.splitlines()].count("ended") == 2


def test_no_worker_is_started_where_somebody_listens(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = f"127.0.0.1:{stranger.getsockname()[1]}"
        settings = json.loads(config.read_text())
        settings["listen"]["bearer"]["address"] = taken
        write(config, settings)
        with serving(config, "--workers", "2") as process:
            _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert told.startswith(f"error: listen.bearer.address: cannot listen on {taken}: Address already in use")
    assert "starting workers" not in told


def test_workers_that_find_the_configuration_wrong_end_the_supervisor(broker: Command, config: Path) -> None:
    broker("db", "upgrade", "--config", str(config))
    (config.parent / "server.pem").write_text("no certificate")
    with serving(config, "--workers", "2") as process:
        _, told = process.communicate(timeout=SECONDS)
        assert process.returncode == 2
        assert "server.pem" in told
        assert "another is started" not in told
