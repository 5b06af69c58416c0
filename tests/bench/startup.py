"""From exec of `broker serve` to the first health check that says SERVING, and the memory held by then.

Each start is that of a further replica on the same database. The connection of
the check is made anew until something listens, every few milliseconds.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from broker.dev.processes import free_port
from broker.dev.server import COMMAND, environment
from tests.bench import processes
from tests.bench.client import CALL_SECONDS
from tests.bench.figures import Figure, percentile
from tests.bench.stack import Bench

GOAL_SECONDS, GOAL_MIB = 1.5, 120.0
STARTS, QUICK_STARTS = 7, 1
_POLL_SECONDS: Final = 0.005
_IDLE_SECONDS, _QUICK_IDLE_SECONDS = 3.0, 0.1


async def run(bench: Bench) -> list[Figure]:
    """Start a broker several times."""
    seen = [await asyncio.to_thread(_start, bench) for _ in range(QUICK_STARTS if bench.quick else STARTS)]
    times, memories = [seconds for seconds, _ in seen], [held for _, held in seen]
    return [
        Figure("exec to ready, the slowest", max(times), "s", GOAL_SECONDS),
        Figure("exec to ready, median", percentile(times, 0.5), "s"),
        Figure("memory, idle (RSS), the most", max(held.resident for held in memories), "MiB", GOAL_MIB),
        Figure("memory, idle (PSS beside another broker)", max(held.proportional for held in memories), "MiB"),
    ]


def _start(bench: Bench) -> tuple[float, processes.Memory]:
    port, other = free_port(), free_port()
    variables = {
        "CREDBROKER_LISTEN__BEARER__ADDRESS": json.dumps(f"127.0.0.1:{port}"),
        "CREDBROKER_LISTEN__MUTUAL__ADDRESS": json.dumps(f"127.0.0.1:{other}"),
    }
    command = [*COMMAND, "serve", "--config", str(bench.folder / "broker.yaml")]
    began = time.monotonic()
    with _running(command, environment(variables)) as process:
        _until_serving(bench, port, process)
        seconds = time.monotonic() - began
        time.sleep(_QUICK_IDLE_SECONDS if bench.quick else _IDLE_SECONDS)
        (held,) = processes.memory(process.pid)
    return seconds, held


@contextmanager
def _running(command: list[str], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_serving(bench: Bench, port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + CALL_SECONDS
    credentials = grpc.ssl_channel_credentials(bench.ca_file.read_bytes())
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError("the broker did not come up")
        time.sleep(_POLL_SECONDS)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.RpcError):
                if check(health_pb2.HealthCheckRequest(), timeout=1).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            time.sleep(_POLL_SECONDS)
    raise TimeoutError("the broker did not become ready")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
