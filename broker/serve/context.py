"""How a servicer gets at the request it serves.

The interceptor sets the `Call` before it runs a servicer's method. gRPC runs
every request in an asyncio task of its own, and a context variable belongs to
its task, so that concurrent requests never see each other's.
"""

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


def serve_from_now_on(call: Call) -> None:
    """Make this the request being served, until its task ends."""
    _current.set(call)
