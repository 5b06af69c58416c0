"""What a worker does not load: each of these takes megabytes in every process, and time at every start."""

import subprocess
import sys

import pytest

_SERVING = """
import sys
from broker.cli.lean import load_without_rich

import broker.cli.app

load_without_rich()
import broker.cli.settings, broker.cli.serving

from rich.console import Console  # for a failure that is told to a person

print(*(name for name in sys.argv[1].split() if name in sys.modules))
"""
_NEEDLESS = (
    "alembic",
    "aiohttp",
    "broker.dev",
    "hvac",
    "opentelemetry",
    "prompt_toolkit",
    "psycopg",
    "prometheus_client",
    "pygments",
    "requests",
    "rich.traceback",
    "sqlalchemy.dialects.mysql",
)


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    command = [sys.executable, "-c", _SERVING, " ".join(_NEEDLESS)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.parametrize("name", _NEEDLESS)
def test_a_worker_does_without(loaded: list[str], name: str) -> None:
    assert name not in loaded
