import socket
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.attest import Attestation
from broker.attest.evidence import BearerToken
from broker.attest.jwt_svid import JwtSvidSettings
from broker.attest.oidc import OidcSettings
from broker.attest.settings import KeySettings
from broker.clock import SystemClock
from broker.dev.issuer import DevIssuer
from broker.dev.pki import DevAuthority
from broker.errors import EvidenceExpired, EvidenceInvalid
from broker.secret import SecretText

AGENT = "spiffe://example.test/agents/reports"


@pytest.fixture(scope="module")
def authority() -> DevAuthority:
    return DevAuthority()


@pytest.fixture(scope="module")
def issuer(authority: DevAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevIssuer]:
    with DevIssuer.start(tmp_path_factory.mktemp("issuer"), authority) as running:
        yield running


@pytest.fixture
def attestation(issuer: DevIssuer) -> Attestation:
    def keys(url: str) -> KeySettings:
        return KeySettings(url=url, ca_file=issuer.ca_file, allow_private=True)

    oidc = OidcSettings(
        kind="oidc", name="people", issuer=issuer.url, jwks=keys(issuer.jwks_url), audiences=("credbroker",)
    )
    svid = JwtSvidSettings(
        kind="jwt_svid",
        name="workloads",
        trust_domain="example.test",
        bundle=keys(issuer.bundle_url),
        audiences=("credbroker",),
    )
    return Attestation((oidc, svid), SystemClock())


async def attest(attestation: Attestation, token: SecretText) -> str:
    try:
        identity = await attestation.attest(BearerToken(token), datetime.now(UTC))
        return f"{identity.uri} {identity.claims.get('groups')}"
    finally:
        await attestation.close()


async def test_people_are_known_by_issuer_and_subject(issuer: DevIssuer, attestation: Attestation) -> None:
    token = issuer.token("alice", claims={"groups": ["admins"]})
    assert await attest(attestation, token) == f"{issuer.url}#alice ['admins']"


async def test_workloads_are_known_by_their_spiffe_id(issuer: DevIssuer, attestation: Attestation) -> None:
    assert await attest(attestation, issuer.svid(AGENT)) == f"{AGENT} None"


async def test_tokens_for_others_are_not_accepted(issuer: DevIssuer, attestation: Attestation) -> None:
    with pytest.raises(EvidenceInvalid, match="meant for others"):
        await attest(attestation, issuer.token("alice", audience="another"))


async def test_expired_tokens_can_be_made(issuer: DevIssuer, attestation: Attestation) -> None:
    with pytest.raises(EvidenceExpired):
        await attest(attestation, issuer.svid(AGENT, lifetime=timedelta(minutes=-5)))


async def test_tokens_survive_a_restart(tmp_path: Path, authority: DevAuthority) -> None:
    with DevIssuer.start(tmp_path, authority) as first:
        token = first.svid(AGENT)
        port = int(first.url.rpartition(":")[2])
    with DevIssuer.start(tmp_path, authority, port=port) as second:
        keys = KeySettings(url=second.bundle_url, ca_file=second.ca_file, allow_private=True)
        svid = JwtSvidSettings(
            kind="jwt_svid", name="w", trust_domain="example.test", bundle=keys, audiences=("credbroker",)
        )
        assert await attest(Attestation((svid,), SystemClock()), token) == f"{AGENT} None"


def test_keys_are_for_their_owner_alone(issuer: DevIssuer) -> None:
    for name in ("signing.key", "server.key"):
        assert stat.S_IMODE((issuer.ca_file.parent / name).stat().st_mode) == 0o600


def test_nothing_listens_any_more_after_the_end(tmp_path: Path, authority: DevAuthority) -> None:
    issuer = DevIssuer.start(tmp_path, authority)
    address = ("127.0.0.1", int(issuer.url.rpartition(":")[2]))
    context = ssl.create_default_context(cafile=issuer.ca_file)
    with socket.create_connection(address) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1"):
        pass
    issuer.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_a_taken_port_is_an_error(tmp_path: Path, authority: DevAuthority) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            DevIssuer.start(tmp_path, authority, port=taken.getsockname()[1])
