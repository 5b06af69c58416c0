"""A running server on loopback, over real TLS, in front of workflows in memory."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc
import pytest
from credbroker.v1 import task_pb2, task_service_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker import config
from broker.dev.pki import DevAuthority
from broker.serve.server import Ports, Server
from broker.serve.services import Service, Workflows, build
from tests.fakes.identify import FakeIdentify, Trail
from tests.fakes.workflows import (
    FakeHoldings,
    FakeIssuer,
    FakeLocks,
    FakeQuery,
    FakeScopes,
    FakeStatus,
    FakeTakeback,
    FakeTasks,
)
from tests.fixtures.clock import FakeClock

START = "credbroker.v1.TaskService/StartTask"
GOOD = task_service_pb2.StartTaskRequest(spec=task_pb2.TaskSpec(purpose="x")).SerializeToString()

RawCall = grpc.aio.UnaryUnaryCall[bytes, bytes]


def send(
    channel: grpc.aio.Channel,
    method: str = START,
    message: bytes = GOOD,
    *,
    metadata: Sequence[tuple[str, str | bytes]] = (),
    timeout: float | None = None,
    compression: grpc.Compression | None = None,
) -> RawCall:
    """Make a call with a message as it is."""
    callable_: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{method}")
    return callable_(message, metadata=metadata, timeout=timeout, compression=compression)


async def refused(call: RawCall) -> "Refusal":
    """Wait for a call that must fail, and return what its caller is told."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


@dataclass
class Readiness:
    """Whether the broker is ready, as the test says."""

    error: Exception | None = None
    hangs: bool = False

    def hang(self) -> None:
        """Never answer again."""
        self.hangs = True

    async def __call__(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


class Harness:
    """Everything around one server."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.clock = clock
        self.authority = DevAuthority()
        self.clients = DevAuthority()
        self.bundle = self.clients.certificate_pem
        self.files = config.Tls(certificate=folder / "tls.crt", private_key=folder / "tls.key")
        self.issue_certificate()
        self.identify = FakeIdentify()
        self.check_clock: Callable[[], None] = lambda: None
        self.trail = Trail()
        self.readiness = Readiness()
        self.tasks = FakeTasks()
        self.issuer = FakeIssuer(self.tasks)
        self.holdings = FakeHoldings(self.issuer)
        self.scopes = FakeScopes()
        self.locks = FakeLocks()
        self.takeback = FakeTakeback()
        self.status = FakeStatus()
        self.query = FakeQuery(self.issuer)
        self.limits = config.Limits()
        self.reflection = False
        self.server: Server | None = None
        self.ports = Ports(None, None)

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def issue_certificate(self) -> None:
        """Write a new server certificate of `authority`."""
        certificate, key = self.authority.issue(addresses=["127.0.0.1"], names=["localhost"])
        self.files.certificate.write_bytes(certificate)
        self.files.private_key.write_bytes(key)

    def settings(self, address: str = "127.0.0.1:0", *, mutual: bool = True) -> config.Settings:
        listener = config.Listener(address=address, tls=self.files)
        return config.Settings(
            listen=config.Listen(bearer=listener, mutual=listener if mutual else None),
            database=config.Database.model_validate({"url": "sqlite:///nowhere"}),
            vault=config.Vault(
                address="https://vault.test:8200",
                namespace="team",
                auth=config.TokenFileAuth(kind="token_file", file=Path("token")),
            ),
            attestors=(config.AttestorSettings(kind="none", name="none"),),
            fingerprint_key_file=Path("key"),
            limits=self.limits,
            reflection=self.reflection,
        )

    def services(self) -> tuple[Service, ...]:
        workflows = Workflows(
            tasks=self.tasks,  # type: ignore[arg-type]  # each fake has its workflow's methods
            issuer=self.issuer,  # type: ignore[arg-type]
            holdings=self.holdings,  # type: ignore[arg-type]
            scopes=self.scopes,  # type: ignore[arg-type]
            locks=self.locks,  # type: ignore[arg-type]
            takeback=self.takeback,  # type: ignore[arg-type]
            status=self.status,  # type: ignore[arg-type]
            query=self.query,  # type: ignore[arg-type]
        )
        return build(workflows, self.settings())

    def make(
        self, services: Sequence[Service] | None = None, *, address: str = "127.0.0.1:0", mutual: bool = True
    ) -> Server:
        """Return a server that is not started."""
        return Server(
            self.settings(address, mutual=mutual),
            self.services() if services is None else services,
            identify=self.identify,
            record=self.trail.write,
            ready=self.readiness,
            trust_bundle=lambda: self.bundle,
            clock=self.clock,
            check_clock=lambda: self.check_clock(),
        )

    async def start(self) -> None:
        self.server = self.make()
        self.ports = await self.server.start()

    async def drain(self) -> None:
        if self.server is not None:
            await self.server.drain()

    async def until_sleeping(self, count: int) -> None:
        """Wait until so many of the server's tasks wait for time to pass."""
        while self.clock.sleepers < count:
            await asyncio.wait([asyncio.create_task(asyncio.to_thread(lambda: None))])

    async def until_idle(self) -> None:
        """Wait until the server runs no request."""
        assert self.server is not None
        await self.server.idle()

    def channel(self, token: str | None = "agent-token") -> grpc.aio.Channel:
        """Connect to the bearer listener."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate_pem)
        if token is not None:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        return self._connect(self.ports.bearer, credentials)

    def mutual_channel(
        self, spiffe_id: str = "spiffe://example.test/agent", authority: DevAuthority | None = None
    ) -> grpc.aio.Channel:
        """Connect to the mutual listener with an X.509-SVID."""
        certificate, key = (authority or self.clients).issue(spiffe_id=spiffe_id)
        return self._connect(
            self.ports.mutual, grpc.ssl_channel_credentials(self.authority.certificate_pem, key, certificate)
        )

    def _connect(self, port: int | None, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        # Without a pool of its own, a channel would share an earlier one's connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)

    def tls_context(self) -> ssl.SSLContext:
        """Return what a client without gRPC needs to connect."""
        context = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
        context.set_alpn_protocols(["h2"])
        return context


@dataclass(frozen=True)
class Refusal:
    """What a client is told."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: dict[str, str]
    violations: list[str]
    retry_after: timedelta | None
    raw: bytes = field(repr=False)


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Read the rich status of a failed call."""
    raw = b"".join(cast("bytes", value) for key, value in error.trailing_metadata() if key == "grpc-status-details-bin")
    status = Status.FromString(raw)
    info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    retry_after = None
    for packed in status.details:
        packed.Unpack(info)
        packed.Unpack(request)
        if packed.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        violations=[item.field for item in request.field_violations],
        retry_after=retry_after,
        raw=raw,
    )
