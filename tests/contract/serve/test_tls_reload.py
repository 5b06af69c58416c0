"""Certificates and trust bundles change while the server runs, and only for the better."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import structlog

from broker.dev.pki import DevAuthority
from tests.contract.serve.harness import Harness, refused, send


async def served_certificate(harness: Harness) -> bytes:
    """Return the certificate that a new connection sees, whoever signed it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", harness.ports.bearer, ssl=context)
    try:
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate
    finally:
        writer.transport.abort()


def certificate_in(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


async def test_new_certificate_is_served_to_new_connections_and_old_ones_go_on(running: Harness) -> None:
    async with running.channel() as old:
        await send(old)
        before = await served_certificate(running)
        running.authority = DevAuthority()
        running.issue_certificate()
        after = await served_certificate(running)
        assert before != after == certificate_in(running.files.certificate)
        async with running.channel() as new:
            await send(new)
        await send(old)


async def test_both_listeners_follow(running: Harness) -> None:
    running.authority = DevAuthority()
    running.issue_certificate()
    async with running.mutual_channel() as channel:
        await send(channel)


def truncate_certificate(harness: Harness) -> None:
    harness.files.certificate.write_bytes(harness.files.certificate.read_bytes()[:100])


def remove_key(harness: Harness) -> None:
    harness.files.private_key.unlink()


def exchange_key(harness: Harness) -> None:
    harness.files.private_key.write_bytes(DevAuthority().key_pem)


@pytest.mark.parametrize("spoil", [truncate_certificate, remove_key, exchange_key])
async def test_unusable_files_leave_the_earlier_ones_in_force(
    running: Harness, spoil: Callable[[Harness], None]
) -> None:
    before = await served_certificate(running)
    spoil(running)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            assert await served_certificate(running) == before
    assert [line["log_level"] for line in logged] == ["error"]
    running.issue_certificate()
    assert await served_certificate(running) == certificate_in(running.files.certificate) != before


async def test_certificate_before_its_key_takes_effect_with_the_key(running: Harness) -> None:
    """Two files cannot be replaced at once."""
    before = await served_certificate(running)
    certificate, key = running.authority.issue(addresses=["127.0.0.1"])
    running.files.certificate.write_bytes(certificate)
    assert await served_certificate(running) == before
    running.files.private_key.write_bytes(key)
    assert await served_certificate(running) == certificate_in(running.files.certificate)


async def test_trust_bundle_changes(running: Harness) -> None:
    newcomers = DevAuthority()
    async with running.mutual_channel(authority=newcomers) as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE
    running.bundle += newcomers.certificate_pem
    async with running.mutual_channel(authority=newcomers) as channel, running.mutual_channel() as known:
        await send(channel)
        await send(known)
    running.bundle = newcomers.certificate_pem
    async with running.mutual_channel() as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("bundle", [b"", b"garbage"])
async def test_unusable_bundle_leaves_the_earlier_one_in_force(running: Harness, bundle: bytes) -> None:
    running.bundle = bundle
    async with running.mutual_channel() as channel:
        await send(channel)
    async with running.mutual_channel(authority=DevAuthority()) as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE


async def test_client_without_a_certificate_does_not_reach_the_mutual_listener(running: Harness) -> None:
    credentials = grpc.ssl_channel_credentials(running.authority.certificate_pem)
    async with grpc.aio.secure_channel(f"127.0.0.1:{running.ports.mutual}", credentials) as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_is_not_spoken(running: Harness) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.bearer}") as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_versions(running: Harness, version: ssl.TLSVersion, accepted: bool) -> None:
    context = running.tls_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", running.ports.bearer, ssl=context, server_hostname="127.0.0.1"
        )
    except (ssl.SSLError, ConnectionError):
        assert not accepted
        return
    assert accepted
    assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
    writer.transport.abort()


def handshake(
    port: int | None, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """Connect; return whether the session was resumed, and the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.recv(1)
        return bool(connection.session_reused), connection.session


async def test_session_cannot_be_resumed_once_its_authority_is_gone(running: Harness, tmp_path: Path) -> None:
    certificate, key = running.clients.issue(spiffe_id="spiffe://example.test/agent")
    (tmp_path / "client.pem").write_bytes(certificate + key)
    context = running.tls_context()
    # Where the client learns at once whether its certificate was accepted.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tmp_path / "client.pem")
    port = running.ports.mutual
    _, session = await asyncio.to_thread(handshake, port, context, None)
    resumed, session = await asyncio.to_thread(handshake, port, context, session)
    assert resumed, "the test would show nothing"
    running.bundle = DevAuthority().certificate_pem
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(handshake, port, context, session)
