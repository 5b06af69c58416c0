"""Asks a broker beside it for its health; for probes that cannot speak TLS themselves.

Usage: healthcheck.py ready|alive

``ready`` ends with 0 when the broker can do its work. ``alive`` ends with 0 when
it answers at all: a broker that waits for Vault or the database must not be
restarted for that.

Environment:

- ``HEALTHCHECK_ADDRESS``: host:port of the bearer listener; 127.0.0.1:8443.
- ``HEALTHCHECK_CA_FILE``: PEM file with the authority of its certificate; the
  system's by default.
- ``HEALTHCHECK_SERVER_NAME``: a name in its certificate, where that is not the
  host of the address.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

TIMEOUT_SECONDS = 4


def ask(environ: Mapping[str, str]) -> int:
    """Return the broker's status, of ``HealthCheckResponse.ServingStatus``.

    Raises:
        grpc.RpcError: when it does not answer.
        OSError: when the authorities cannot be read.
    """
    ca_file, name = environ.get("HEALTHCHECK_CA_FILE"), environ.get("HEALTHCHECK_SERVER_NAME")
    credentials = grpc.ssl_channel_credentials(Path(ca_file).read_bytes() if ca_file else None)
    options = [("grpc.ssl_target_name_override", name)] if name else []
    address = environ.get("HEALTHCHECK_ADDRESS", "127.0.0.1:8443")
    with grpc.secure_channel(address, credentials, options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return int(check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS).status)


def main(arguments: list[str]) -> int:
    """Return 0 when the broker is what was asked for."""
    if arguments not in (["ready"], ["alive"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        status = ask(os.environ)
    except grpc.RpcError as error:
        print(f"no answer: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot ask: {error}", file=sys.stderr)
        return 1
    if arguments == ["ready"] and status != health_pb2.HealthCheckResponse.SERVING:
        print("not ready", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
