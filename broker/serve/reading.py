"""Receiving a request's message by hand.

Left to itself, gRPC receives and parses a unary call's message before any of
the broker's code runs, and waits for it without end. Served as if the client
could stream, a unary call looks the same on the wire, but the message is read
when the broker asks for it: after the caller is known, and under a time limit.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from broker import deadline
from broker.clock import Clock
from broker.errors import InvalidArgument

READ_TIMEOUT: Final = 10.0
"""Seconds that a client may take to send its message."""

_CLOSING_SECONDS = 1.0

if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # which only the stubs make generic

Context: TypeAlias = grpc.aio.ServicerContext[object, bytes]
T = TypeVar("T")


async def read_message(context: Context, parse: Callable[[bytes], T], clock: Clock) -> T:
    """Receive and parse the one message of a unary call.

    Raises:
        InvalidArgument: when none arrives in time, or it cannot be parsed.
    """
    try:
        with deadline.limited(READ_TIMEOUT):
            raw = await context.read()
    except TimeoutError:
        raise _refused(f"the request's message must arrive within {READ_TIMEOUT:.0f} seconds") from None
    if not isinstance(raw, bytes):
        # The client went away or its message was too large: then gRPC has ended
        # the call and cancels this wait. Otherwise the client sent no message.
        await clock.sleep(_CLOSING_SECONDS)
        raise _refused("the request must have a message")
    try:
        return parse(raw)
    except DecodeError:
        raise _refused("the request's message must be valid protobuf, and its text valid UTF-8") from None


def _refused(expected: str) -> InvalidArgument:
    return InvalidArgument(expected, message=expected)
