"""What the server needs to know of one service."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor


@dataclass(frozen=True, slots=True)
class Service:
    """One service that can be served.

    Attributes:
        descriptor: The contract.
        register: Adds the servicer to a server.
    """

    descriptor: ServiceDescriptor
    register: Callable[[grpc.aio.Server], None]
