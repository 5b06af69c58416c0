"""Where the figures were taken: they mean nothing without it."""

import os
import platform
import sqlite3
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psycopg

from broker.dev.openbao import OpenBao
from broker.dev.postgres import Postgres
from tests.bench.stack import Parts


def facts(parts: Parts) -> dict[str, str]:
    """Return what somebody needs to judge or repeat a measurement."""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} usable cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, grpcio {version('grpcio')}, SQLAlchemy {version('sqlalchemy')}",
        "servers": f"OpenBao {_openbao(parts.openbao)}, PostgreSQL {_postgres(parts.postgres)}, "
        f"SQLite {sqlite3.sqlite_version}",
        "revision": _revision(),
    }


def flush_seconds(folder: Path, times: int = 100) -> float:
    """Return how long it takes until 4 KiB that were appended to a file are on the disk; the median."""
    taken = []
    with (folder / "flushed").open("wb", buffering=0) as stream:
        for _ in range(times):
            stream.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(stream.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def load() -> str:
    """Return how busy the machine has been in the last 1 and 5 minutes, in running processes."""
    return " ".join(f"{number:.2f}" for number in os.getloadavg()[:2])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _openbao(server: OpenBao) -> str:
    return str(server.client().adapter.get("/v1/sys/health")["version"])


def _postgres(server: Postgres) -> str:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]) if row else "?"


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "not a checkout"
