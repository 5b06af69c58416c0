"""The server: two listeners before one set of services, from start to drain."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2_grpc

from broker import config
from broker.clock import Clock
from broker.errors import ConfigError
from broker.serve.access import access_table, check_complete
from broker.serve.gate import Gate
from broker.serve.health import Health, Readiness
from broker.serve.interceptor import Identifier, Interceptor
from broker.serve.lanes import Lane, Lanes
from broker.serve.observing import Observer
from broker.serve.options import max_calls, server_options
from broker.serve.public import PublicCalls
from broker.serve.refusals import Recorder, Refusals
from broker.serve.services import Service
from broker.serve.tls import Certificates

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that the listeners were given; None for a listener that is not configured."""

    bearer: int | None
    mutual: int | None


class Server:
    """Serves the broker's RPCs.

    Args:
        settings: Listeners, limits, and whether reflection answers.
        services: What is served.
        identify: Establishes the caller from evidence.
        record: Makes the event of a refusal durable.
        ready: Raises a `BrokerError` while the broker cannot do its work.
        trust_bundle: Returns the authorities of client certificates, PEM.
        clock: The broker's time.
        check_clock: Raises a `BrokerError` while that cannot be trusted.
        observers: Are told of every request.
        share_ports: Whether other workers listen on the same addresses.
    """

    def __init__(
        self,
        settings: config.Settings,
        services: Sequence[Service],
        *,
        identify: Identifier,
        record: Recorder,
        ready: Readiness,
        trust_bundle: Callable[[], bytes],
        clock: Clock,
        check_clock: Callable[[], None],
        observers: Sequence[Observer] = (),
        share_ports: bool = False,
    ) -> None:
        self._settings = settings
        self._share_ports = share_ports
        self._services = services
        self._trust_bundle = trust_bundle
        self._table = access_table(reflection=settings.reflection)
        self._gate = Gate(settings.limits.max_concurrent_requests)
        self._refusals = Refusals(record, clock)
        self._health = Health([service.descriptor.full_name for service in services], ready, clock)
        self._public = PublicCalls(clock)
        self._lanes = Lanes(settings.limits)
        self._interceptor = Interceptor(
            self._table,
            identify,
            self._refusals,
            self._gate,
            self._lanes,
            self._public,
            clock,
            check_clock,
            settings.limits.max_request_time,
            observers,
        )
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Ports:
        """Open the listeners and serve.

        Raises:
            RuntimeError: when the access table does not list exactly what is
                served; no port was opened.
            ConfigError: when certificates are unusable or an address is taken.
        """
        check_complete(self._table, self._descriptors())
        credentials = self._credentials()
        limits = self._settings.limits
        server = self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=server_options(limits, share_ports=self._share_ports),
            maximum_concurrent_rpcs=max_calls(limits),
        )
        self._register(server)
        ports = {name: _listen(server, name, address, given) for name, (address, given) in credentials.items()}
        await self._health.start()
        await server.start()
        log.info("listening", **ports)
        return Ports(bearer=ports.get("bearer"), mutual=ports.get("mutual"))

    @property
    def requests(self) -> int:
        """How many requests are inside."""
        return self._gate.inside

    @property
    def requests_waiting(self) -> dict[str, int]:
        """How many of them are admitted and wait for their turn, by lane."""
        return {lane.value: self._lanes[lane].waiting for lane in Lane}

    @property
    def is_ready(self) -> bool:
        """Whether the broker could do its work when that was last checked."""
        return self._health.is_serving

    async def idle(self) -> None:
        """Wait until no request runs."""
        await self._gate.empty()

    async def drain(self) -> None:
        """Finish: no new requests, and a bounded time for those that run.

        Whoever still runs when `limits.drain_timeout` is over is cancelled.
        """
        await self._health.stop()
        if self._server is None:
            return
        seconds = self._settings.limits.drain_timeout.total_seconds()
        stopping = asyncio.create_task(self._server.stop(seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.idle()
        self._public.end_streams()
        await stopping
        await self._refusals.drain()
        log.info("drained")

    def _descriptors(self) -> list[ServiceDescriptor]:
        pool = descriptor_pool.Default()
        served = [service.descriptor for service in self._services]
        served.append(pool.FindServiceByName(health.SERVICE_NAME))
        if self._settings.reflection:
            served.append(pool.FindServiceByName(_reflection().SERVICE_NAME))
        return served

    def _register(self, server: grpc.aio.Server) -> None:
        for service in self._services:
            service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if self._settings.reflection:
            _reflection().enable_server_reflection([served.full_name for served in self._descriptors()], server)

    def _credentials(self) -> dict[str, tuple[str, grpc.ServerCredentials]]:
        """Return address and credentials of each configured listener."""
        listen = self._settings.listen
        found = {}
        if listen.bearer is not None:
            found["bearer"] = listen.bearer.address, Certificates(listen.bearer.tls).credentials()
        if listen.mutual is not None:
            certificates = Certificates(listen.mutual.tls, self._trust_bundle)
            found["mutual"] = listen.mutual.address, certificates.credentials()
        return found


def _reflection() -> ModuleType:
    # 1 MB, and seldom wanted.
    from grpc_reflection.v1alpha import reflection

    return reflection


def _listen(server: grpc.aio.Server, name: str, address: str, credentials: grpc.ServerCredentials) -> int:
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ConfigError(f"listen.{name}.address: cannot listen on {address}") from None
