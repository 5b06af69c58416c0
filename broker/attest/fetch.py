"""Fetching a key set: one bounded request to an address that may be asked."""

import errno
import ipaddress
import socket
import ssl
from functools import partial
from typing import Any, Final, TypeAlias

import aiohttp

from broker.errors import KeysUnavailable

MAX_BODY_BYTES: Final = 1024 * 1024
TIMEOUT_SECONDS: Final = 5

# (family, type, protocol, canonical name, socket address), as getaddrinfo gives it.
_AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]

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
    loopback_only = url.startswith("http://")
    opener = partial(_open_socket, allow_private=allow_private, loopback_only=loopback_only)
    connector = aiohttp.TCPConnector(ssl=tls, socket_factory=opener, use_dns_cache=False, force_close=True)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(
                url,
                allow_redirects=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as response,
        ):
            return await _read_body(url, response)
    except TimeoutError:
        raise KeysUnavailable(f"{url}: no full answer within {TIMEOUT_SECONDS} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise KeysUnavailable(f"{url}: {error}") from None


async def _read_body(url: str, response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise KeysUnavailable(f"{url}: answered with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise KeysUnavailable(f"{url}: answered with a content coding that was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise KeysUnavailable(f"{url}: answered with more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


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


def _open_socket(info: _AddressInfo, *, allow_private: bool, loopback_only: bool) -> socket.socket:
    family, kind, protocol, _, address = info
    check_address(str(address[0]), allow_private=allow_private, loopback_only=loopback_only)
    return socket.socket(family, kind, protocol)
