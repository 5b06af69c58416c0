"""How gRPC is set up: everything that a stranger could make grow is bounded."""

from typing import Final

from broker import config
from broker.serve.public import MAX_PUBLIC_CALLS

HANDSHAKE_TIMEOUT_MS: Final = 5_000
MAX_METADATA_BYTES: Final = 32 * 1024
# A stream that is reset at once costs little, but the calls of others queue behind
# those of one connection that were taken in before its reset was seen.
MAX_STREAMS_PER_CONNECTION: Final = 100
MAX_CONNECTION_IDLE_MS: Final = 15 * 60 * 1000
MAX_CONNECTION_AGE_MS: Final = 60 * 60 * 1000
MAX_CONNECTION_AGE_GRACE_MS: Final = 60 * 1000

# Requests that are being turned away, or whose refusal is on its way.
_MARGIN = 256

Option = tuple[str, int]


def server_options(limits: config.Limits, *, share_ports: bool) -> tuple[Option, ...]:
    """Return gRPC's channel arguments for the server.

    Args:
        limits: The configured bounds.
        share_ports: Whether other processes of this user may listen on the
            same addresses; the kernel then spreads connections among them.
    """
    return (
        ("grpc.so_reuseport", int(share_ports)),
        # Counts after decompression too, so that a bomb is cut off on the way.
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        # One limit: between two, gRPC would refuse at random.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_connection_idle_ms", MAX_CONNECTION_IDLE_MS),
        ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_AGE_GRACE_MS),
        # A peer that is gone without a word is noticed within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients that ping more often than that are disconnected.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def max_calls(limits: config.Limits) -> int:
    """Return the most calls that gRPC may hand to the broker at once, those to be refused included."""
    return limits.max_concurrent_requests + 2 * MAX_PUBLIC_CALLS + _MARGIN
