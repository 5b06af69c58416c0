"""How a servicer gets at the request it serves.

The interceptor sets the `Call` before it runs a servicer's method. gRPC runs
every request in an asyncio task of its own, and a context variable belongs to
its task, so that concurrent requests never see each other's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from broker.audit import Call

_current: ContextVar[Call] = ContextVar("credbroker_call")


def current_call() -> Call:
    """Return the request that is being served.

    Raises:
        RuntimeError: when called outside of a request.
    """
    call = _current.get(None)
    if call is None:
        raise RuntimeError("there is no request being served here")
    return call


@contextmanager
def serving(call: Call) -> Iterator[None]:
    """Make this the request being served, for the block."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)
