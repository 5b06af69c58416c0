"""The bounds that gRPC itself is given."""

import subprocess
import sys

import pytest

from broker import config
from broker.serve.options import max_calls, server_options


def test_every_bound_is_set_once() -> None:
    options = server_options(config.Limits(max_message_bytes=4096), share_ports=False)
    given = dict(options)
    assert len(given) == len(options)
    assert given["grpc.max_receive_message_length"] == 4096
    assert given["grpc.server_handshake_timeout_ms"] == 5000
    assert given["grpc.max_metadata_size"] == given["grpc.absolute_max_metadata_size"] <= 64 * 1024
    assert given["grpc.so_reuseport"] == 0
    assert all(given[f"grpc.{name}"] > 0 for name in ("max_concurrent_streams", "max_allowed_incoming_connections"))


def test_grpcs_own_bound_leaves_room_for_refusals() -> None:
    limits = config.Limits(max_concurrent_requests=10)
    assert max_calls(limits) > limits.max_concurrent_requests


LOADING = """
import os, sys
seen = []
def hook(event, args):
    if event == "import" and args[0] == "grpc":
        seen.append(os.environ.get("GRPC_EXPERIMENTS", "unset"))
sys.addaudithook(hook)
import broker.cli.settings, broker.cli.serving
print(seen[0])
"""


@pytest.mark.parametrize(("given", "found"), [(None, "-event_engine_listener"), ("mine", "mine")])
def test_grpcs_listener_is_chosen_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, given: str | None, found: str
) -> None:
    monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    if given is not None:
        monkeypatch.setenv("GRPC_EXPERIMENTS", given)
    loaded = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == found
