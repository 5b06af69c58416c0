"""Fetching a key set: one bounded request to an address that may be asked."""

import asyncio
import errno
import ipaddress
import socket
import ssl
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType

from broker.errors import KeysUnavailable
from broker.http1.pool import CannotConnect, Pool
from broker.http1.reply_reader import NoAnswer, Reply

MAX_BODY_BYTES: Final = 1024 * 1024
TIMEOUT_SECONDS: Final = 5

_FIELDS: Final = (
    "User-Agent: credbroker\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
)

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291, section 2.4
_6TO4: Final = ipaddress.IPv6Network("2002::/16")  # RFC 7526: deprecated, and hides an IPv4 address


async def fetch(url: str, *, tls: ssl.SSLContext, allow_private: bool) -> bytes:
    """Return the body of a plain 200 reply.

    Redirects, proxies, cookies, content codings and bodies beyond
    `MAX_BODY_BYTES` are refused; the whole exchange takes `TIMEOUT_SECONDS` at
    most. Addresses are judged where the socket is opened, so that no second
    name resolution can come between judging and connecting.

    Args:
        url: https, or http to loopback.
        tls: For https.
        allow_private: Whether an address that is not public may be asked.

    Raises:
        KeysUnavailable: when there is no such reply.
    """
    try:
        reply = await _get(url, tls, allow_private)
    except TimeoutError:
        raise KeysUnavailable(f"{url}: no full answer within {TIMEOUT_SECONDS} seconds") from None
    except (CannotConnect, NoAnswer, ValueError) as error:
        raise KeysUnavailable(f"{url}: {error}") from None
    if reply.status != HTTPStatus.OK:
        raise KeysUnavailable(f"{url}: answered with status {reply.status}")
    return reply.content


async def _get(url: str, tls: ssl.SSLContext, allow_private: bool) -> Reply:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL of a web server")
    opener = partial(_open_socket, allow_private=allow_private, loopback_only=parts.scheme == "http")
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{_FIELDS}\r\n".encode("ascii")
    pool = Pool(url, tls, opener)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await pool.exchange(request, MAX_BODY_BYTES)
    finally:
        await pool.close()


def check_address(text: str, *, allow_private: bool, loopback_only: bool) -> None:
    """Check that a numeric address may be asked for keys.

    Raises:
        PermissionError: when it may not.
    """
    address = ipaddress.ip_address(text)
    if loopback_only and not address.is_loopback:
        raise PermissionError(errno.EACCES, f"{address} is not loopback, and the url is not https")
    if not allow_private and not _is_public(address):
        raise PermissionError(errno.EACCES, f"{address} is not a public address, and allow_private is not set")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_UNICAST and address not in _6TO4 and address.is_global


def _open_socket(info: AddrInfoType, *, allow_private: bool, loopback_only: bool) -> socket.socket:
    family, kind, protocol, _, address = info
    check_address(str(address[0]), allow_private=allow_private, loopback_only=loopback_only)
    return socket.socket(family, kind, protocol)
