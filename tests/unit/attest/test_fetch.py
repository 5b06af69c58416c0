import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker.attest import fetch as fetching
from broker.attest.fetch import MAX_BODY_BYTES, check_address, fetch
from broker.errors import KeysUnavailable
from tests.unit.attest.authority import FAR, Authority, key_pem, pem
from tests.unit.attest.key_server import KeyServer

TLS = ssl.create_default_context()


async def _refused(url: str, match: str, *, tls: ssl.SSLContext = TLS, allow_private: bool = True) -> None:
    with pytest.raises(KeysUnavailable, match=match):
        await fetch(url, tls=tls, allow_private=allow_private)


async def test_body_is_returned_as_it_is(key_server: KeyServer) -> None:
    key_server.body = b'{"keys": [1, 2]}'
    assert await fetch(key_server.url(), tls=TLS, allow_private=True) == key_server.body
    request = key_server.requests[0]
    assert request.path == "/keys"
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in request.headers


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 500, 503])
async def test_any_other_status(key_server: KeyServer, status: int) -> None:
    key_server.status = status
    await _refused(key_server.url(), f"status {status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/elsewhere", "file:///etc/passwd", "http://169.254.169.254/latest"])
async def test_redirects_are_not_followed(key_server: KeyServer, status: int, target: str) -> None:
    key_server.status = status
    key_server.headers = {"Location": target}
    await _refused(key_server.url(), f"status {status}")
    assert len(key_server.requests) == 1


async def test_largest_body(key_server: KeyServer) -> None:
    key_server.body = b" " * MAX_BODY_BYTES
    assert len(await fetch(key_server.url(), tls=TLS, allow_private=True)) == MAX_BODY_BYTES
    key_server.body += b" "
    await _refused(key_server.url(), "more than")


async def test_endless_body_is_not_read_to_its_end(key_server: KeyServer) -> None:
    key_server.endless = True
    await _refused(key_server.url(), "more than")
    assert key_server.sent < 64 * MAX_BODY_BYTES


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip"])
async def test_compressed_body(key_server: KeyServer, coding: str) -> None:
    key_server.headers = {"Content-Encoding": coding}
    await _refused(key_server.url(), "content coding")
    key_server.headers = {"Content-Encoding": "Identity"}
    assert await fetch(key_server.url(), tls=TLS, allow_private=True) == key_server.body


@pytest.mark.parametrize("stalling", [False, True])
async def test_slow_answer(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch, stalling: bool) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.05)
    key_server.stalling = stalling
    key_server.gate.clear()
    await _refused(key_server.url(), "no full answer within")


async def test_a_server_that_does_not_shake_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.05)
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await _refused(f"https://127.0.0.1:{port}/keys", "no full answer within")
        await asyncio.wait_for(closed.wait(), 10)


async def test_proxies_of_the_environment_are_not_used(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await fetch(key_server.url(), tls=TLS, allow_private=True) == key_server.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_address_behind_a_number_or_a_name(key_server: KeyServer, host: str) -> None:
    await _refused(key_server.url(host), "not a public address", allow_private=False)
    await _refused(key_server.url(host).replace("http:", "https:"), "not a public address", allow_private=False)
    assert key_server.requests == []


@pytest.mark.parametrize("url", ["http://127.1:9/keys", "http://2130706433:9/keys", "http://[::1]:9/keys"])
async def test_other_ways_to_write_loopback(url: str) -> None:
    await _refused(url, ".", allow_private=False)


async def test_nobody_listens(key_server: KeyServer) -> None:
    await _refused("http://127.0.0.1:1/keys", "127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["http://a..b/keys", "https://" + "a" * 64 + "/keys", "http:///keys", "file:///etc/passwd"]
)
async def test_url_that_cannot_be_asked(url: str) -> None:
    await _refused(url, ".")


PUBLIC = ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    check_address(address, allow_private=False, loopback_only=False)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    with pytest.raises(PermissionError, match="not a public address"):
        check_address(address, allow_private=False, loopback_only=False)
    check_address(address, allow_private=True, loopback_only=False)


@pytest.mark.parametrize("address", [*PUBLIC, "10.0.0.1", "169.254.169.254", "fe80::1"])
def test_without_tls_only_loopback(address: str) -> None:
    with pytest.raises(PermissionError, match="not loopback"):
        check_address(address, allow_private=True, loopback_only=True)
    check_address("127.0.0.1", allow_private=True, loopback_only=True)


def _server_tls(authority: Authority, file: Path) -> ssl.SSLContext:
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.leaf(key=key, not_after=FAR, names=(names, False))
    file.write_bytes(pem(certificate) + key_pem(key))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


async def test_https_with_its_own_authority(tmp_path: Path) -> None:
    authority = Authority(not_after=FAR)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    async with KeyServer().running(_server_tls(authority, tmp_path / "server.pem")) as server:
        assert await fetch(server.url("localhost"), tls=trusting, allow_private=True) == server.body
        await _refused(server.url("localhost"), "certificate verify failed")
        await _refused(server.url("127.0.0.1"), "certificate", tls=trusting)
        assert len(server.requests) == 1
