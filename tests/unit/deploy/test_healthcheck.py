import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from broker.dev.pki import DevAuthority

PROGRAM = Path(__file__).resolve().parents[3] / "deploy" / "healthcheck.py"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class Server:
    """A health service behind TLS, under a name that is not its address."""

    servicer: health.HealthServicer
    environment: dict[str, str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    authority = DevAuthority()
    certificate, key = authority.issue(names=["broker.example.test"])
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.certificate_pem)
    running = grpc.server(ThreadPoolExecutor(max_workers=2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, running)
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    running.start()
    yield Server(
        servicer,
        {
            "HEALTHCHECK_ADDRESS": f"127.0.0.1:{port}",
            "HEALTHCHECK_CA_FILE": str(ca_file),
            "HEALTHCHECK_SERVER_NAME": "broker.example.test",
        },
    )
    running.stop(grace=None).wait()


def probe(question: str, environment: dict[str, str]) -> int:
    command = [sys.executable, str(PROGRAM), question]
    return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode


def test_ready_means_serving(server: Server) -> None:
    server.servicer.set("", SERVING)
    assert probe("ready", server.environment) == 0
    server.servicer.set("", NOT_SERVING)
    assert probe("ready", server.environment) == 1


def test_alive_means_answering(server: Server) -> None:
    server.servicer.set("", NOT_SERVING)
    assert probe("alive", server.environment) == 0
    assert probe("alive", server.environment | {"HEALTHCHECK_ADDRESS": "127.0.0.1:1"}) == 1


def test_a_stranger_s_answer_does_not_count(server: Server, tmp_path: Path) -> None:
    server.servicer.set("", SERVING)
    other = tmp_path / "other.pem"
    other.write_bytes(DevAuthority().certificate_pem)
    assert probe("ready", server.environment | {"HEALTHCHECK_CA_FILE": str(other)}) == 1
    assert probe("ready", server.environment | {"HEALTHCHECK_SERVER_NAME": "other.example.test"}) == 1


def test_misuse_is_no_answer(server: Server) -> None:
    assert probe("well", server.environment) == 2
    assert probe("ready", server.environment | {"HEALTHCHECK_CA_FILE": "/does/not/exist"}) == 1
