"""The only place where the broker's objects are built and bound together."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from broker import metrics, scrape
from broker.anchors import Anchors
from broker.attest import Attestation
from broker.authorize import RoleRules, compile_scope
from broker.clock import Clock, SystemClock
from broker.clock_guard import ClockGuard
from broker.config import Settings, Vault, VaultAuth
from broker.document import parse_document
from broker.errors import ConfigError, VaultUnavailable
from broker.gauges import Gauges
from broker.holding import Holdings
from broker.identify import Identify
from broker.issue import Issuer
from broker.locks import Locks
from broker.mint import MAPPINGS
from broker.mint.login import VaultLogin
from broker.mint.vault import VaultClient
from broker.model import AuditEvent
from broker.policy import PolicyCache
from broker.presence import Presence, replica_name
from broker.query import Query
from broker.revoke import Revoker
from broker.scopes import Scopes
from broker.secret import Secret
from broker.serve.observing import Observer
from broker.serve.server import Server
from broker.serve.services import Workflows, build
from broker.status import Status
from broker.step import observe
from broker.store import Store, events
from broker.sweep import Sweeper
from broker.takeback import Takeback
from broker.tasks import Tasks
from broker.undo import Undo

RELEASE: Final = version("credbroker-server")
RELOAD_INTERVAL: Final = timedelta(seconds=5)
MIN_KEY_BYTES: Final = 32
MAX_KEY_BYTES: Final = 4096

log = structlog.get_logger(__name__)


class App:
    """A running broker. Made by `start`.

    Attributes:
        addresses: Where it listens: ``bearer``, ``mutual`` and ``metrics``, as
            configured, with ``host:port``.
        name: Of this replica.
    """

    def __init__(self, settings: Settings, clock: Clock, name: str, share_ports: bool) -> None:
        self.addresses: dict[str, str] = {}
        self.name = name
        self._settings = settings
        self._clock = clock
        self._share_ports = share_ports
        self._exit = AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []
        self._logins: list[VaultLogin] = []

    @classmethod
    async def start(
        cls, settings: Settings, clock: Clock | None = None, name: str | None = None, *, share_ports: bool = False
    ) -> "App":
        """Build a broker and let it listen.

        Vault may be away at this time: the broker listens and says that it is
        not ready until Vault is there.

        Args:
            settings: The configuration.
            clock: The machine's by default.
            name: Of this replica; `replica_name` by default.
            share_ports: Whether other workers listen on the same addresses.

        Raises:
            ConfigError: when something the configuration points to is wrong.
            StoreUnavailable: when the database cannot be reached, or is not at
                the newest migration.
        """
        app = cls(settings, clock or SystemClock(), name or replica_name(), share_ports)
        try:
            await app._build()
        except BaseException:
            await app._exit.aclose()
            raise
        return app

    async def wait(self) -> None:
        """Wait until background work fails, which it never should.

        Raises:
            Exception: what it failed with.
        """
        done, _ = await asyncio.wait(self._background, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Finish the requests under way and let go of everything."""
        await self._exit.aclose()

    async def _build(self) -> None:
        settings, clock, held = self._settings, self._clock, self._exit
        key = read_key(settings.fingerprint_key_file)
        store = await self._store()
        vault = await self._vault(settings.vault.auth)
        reaper = await self._vault(settings.vault.reaper_auth) if settings.vault.reaper_auth else None
        guard = await self._clock_guard(vault)
        attestation = Attestation(settings.attestors, clock)
        held.push_async_callback(attestation.close)

        rules = PolicyCache(lambda record: compile_scope(record, parse_document(record.document, MAPPINGS)))
        anchors = Anchors(store, vault, clock, self.name)
        revoker = Revoker(store, vault, clock)
        sweeper = Sweeper(store, anchors, revoker, clock, reaper)
        presence = Presence(store, clock, self.name, RELEASE)
        wait = settings.limits.revocation_wait
        undo = Undo(store, vault, anchors, revoker, clock)
        issuer = Issuer(store, vault, rules, anchors, revoker, undo, key)
        workflows = Workflows(
            tasks=Tasks(store, rules, anchors, revoker, wait),
            issuer=issuer,
            holdings=Holdings(store, vault, rules, revoker, wait),
            scopes=Scopes(store, rules),
            locks=Locks(store, revoker),
            takeback=Takeback(store),
            status=Status(store, vault, guard, self.name, RELEASE),
            query=Query(store),
        )

        async def record(event: AuditEvent) -> None:
            await store.write(lambda conn: events.append(conn, [event]))

        async def ready() -> None:
            await store.check()
            await vault.check()
            guard.check()
            await attestation.check()

        server = Server(
            settings,
            build(workflows, settings),
            identify=Identify(attestation, RoleRules(settings.access), store),
            record=record,
            ready=ready,
            trust_bundle=attestation.trust_bundle_pem,
            clock=clock,
            check_clock=guard.check,
            observers=self._observers(),
            share_ports=self._share_ports,
        )
        for loop in (presence, revoker, sweeper):
            self._background.append(loop.start())
            held.push_async_callback(loop.stop)
        held.push_async_callback(issuer.drain)
        self._background.append(asyncio.create_task(self._reload(attestation), name="reload"))
        held.callback(self._background[-1].cancel)
        await self._measure(store, server, guard)
        held.push_async_callback(server.drain)
        await self._listen(server)

    async def _listen(self, server: Server) -> None:
        listen = self._settings.listen
        ports = await server.start()
        for name, listener, port in (
            ("bearer", listen.bearer, ports.bearer),
            ("mutual", listen.mutual, ports.mutual),
        ):
            if listener is not None and port is not None:
                self.addresses[name] = f"{listener.address.rpartition(':')[0]}:{port}"

    def _observers(self) -> list[Observer]:
        """Begin to observe steps, and return who is told of requests."""
        observers: list[Observer] = []
        if self._settings.metrics is not None:
            self._exit.callback(observe(metrics.step_observer(self._clock)))
            observers.append(metrics.observe_request)
        if self._settings.traces is not None:
            from broker.traces import Tracing  # its libraries take long to load

            tracing = Tracing(self._settings.traces, RELEASE, self.name)
            self._exit.push_async_callback(tracing.stop)
            self._exit.callback(observe(tracing.observe_step))
            observers.append(tracing.observe_request)
        return observers

    async def _measure(self, store: Store, server: Server, guard: ClockGuard) -> None:
        """Keep the gauges fresh, and let them be scraped, unless whoever started this process does that."""
        if self._settings.metrics is None:
            return
        metrics.set_build(RELEASE)

        def reading() -> metrics.Reading:
            return metrics.Reading(
                ready=server.is_ready,
                requests=server.requests,
                writes_waiting=store.writes_waiting,
                reads=store.reads_in_progress,
                vault_token_left=min(login.seconds_left for login in self._logins),
                clock_difference=guard.difference,
                leases={},
            )

        gauges = Gauges(store, self._clock, reading)
        self._background.append(gauges.start())
        self._exit.push_async_callback(gauges.stop)
        if not scrape.one_of_several():
            listening = scrape.listening(self._settings.metrics.address, metrics.render)
            self.addresses["metrics"] = await self._exit.enter_async_context(listening)

    async def _store(self) -> Store:
        store = Store(Secret(self._settings.database.url.get_secret_value()))
        await store.start()
        self._exit.push_async_callback(store.close)
        await store.check()
        return store

    async def _clock_guard(self, vault: VaultClient) -> ClockGuard:
        """Return what compares the clocks, once Vault has told its time, before anything is decided by ours."""
        with suppress(VaultUnavailable):
            await vault.check()
        return ClockGuard(vault.clock_difference, self._settings.vault.max_clock_difference, self._clock)

    async def _vault(self, auth: VaultAuth) -> VaultClient:
        settings: Vault = self._settings.vault
        login = VaultLogin(settings, auth, self._clock)
        await login.start()
        self._logins.append(login)
        self._exit.push_async_callback(login.stop)
        client = VaultClient(settings, login, self._clock)
        self._exit.push_async_callback(client.close)
        return client

    async def _reload(self, attestation: Attestation) -> None:
        """Follow trust bundles and key files while running."""
        while True:
            await self._clock.sleep(RELOAD_INTERVAL.total_seconds())
            try:
                await asyncio.to_thread(attestation.reload)
            except ConfigError as error:
                log.error("trust files cannot be read again, what was read before stays", reason=error.detail)


def read_key(file: Path) -> Secret[bytes]:
    """Return the key of the fingerprints.

    Raises:
        ConfigError: when it cannot be read or is too short.
    """
    try:
        with file.open("rb") as stream:
            key = stream.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"fingerprint_key_file: {file}: cannot be read: {error.strerror}") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ConfigError(
            f"fingerprint_key_file: {file}: must hold {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes; "
            f"make one with: head -c 32 /dev/urandom > {file}"
        )
    return Secret(key)
