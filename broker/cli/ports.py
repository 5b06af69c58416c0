"""Addresses that several workers listen on together."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from broker.config import Listen
from broker.errors import ConfigError


@contextmanager
def reserved(listen: Listen) -> Iterator[dict[str, str]]:
    """Keep the configured addresses for this user's processes while in the block.

    A socket that is bound and does not listen receives nothing, keeps others
    from the port, and settles which one port 0 stands for.

    Yields:
        ``host:port`` of each listener that is configured.

    Raises:
        ConfigError: when somebody listens on one of them already, or it is not
            one of this machine's.
    """
    with ExitStack() as held:
        yield {
            name: _reserve(name, listener.address, held)
            for name, listener in (("bearer", listen.bearer), ("mutual", listen.mutual))
            if listener is not None
        }


def _reserve(name: str, address: str, held: ExitStack) -> str:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        # Without sharing, to notice those that share their ports as well.
        with _bound(family, where, share=False):
            pass
        keeper = held.enter_context(_bound(family, where, share=True))
    except OSError as error:
        raise ConfigError(f"listen.{name}.address: cannot listen on {address}: {error.strerror}") from None
    return f"{host}:{keeper.getsockname()[1]}"


def _bound(family: socket.AddressFamily, where: tuple[object, ...], *, share: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As gRPC does: connections of a past run are no obstacle.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound
