"""The bounds that gRPC itself is given."""

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
