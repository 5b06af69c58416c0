"""The only place where the broker's objects are built and bound together."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from broker.anchors import Anchors
from broker.attest import Attestation
from broker.authorize import RoleRules, compile_scope
from broker.clock import Clock, SystemClock
from broker.clock_guard import ClockGuard
from broker.config import Settings, Vault, VaultAuth
from broker.deciding import Deciding
from broker.document import parse_document
from broker.duty import Duty
from broker.errors import ConfigError, VaultUnavailable
from broker.holding import Holdings
from broker.identify import Identify
from broker.issue import Issuer
from broker.lease import Lease
from broker.locks import Locks
from broker.mint import MAPPINGS
from broker.mint.login import VaultLogin
from broker.mint.vault import VaultClient
from broker.model import AuditEvent
from broker.outbox import Confirmed, Revoker
from broker.policy import PolicyCache
from broker.presence import Presence
from broker.query import Query
from broker.reap import Reaper
from broker.replica import replica_name
from broker.scopes import Scopes
from broker.secret import Secret
from broker.serve.observing import Observer
from broker.serve.server import Server
from broker.serve.services import Workflows, build
from broker.status import Status
from broker.step import observe
from broker.store import Store, events
from broker.store.installation import installation_id
from broker.sweep import Sweeper
from broker.takeback import Takeback
from broker.tasks import Tasks
from broker.undo import Undo
from broker.watch import Watch

RELEASE: Final = version("credbroker-server")
RELOAD_INTERVAL: Final = timedelta(seconds=5)
MIN_KEY_BYTES: Final = 32
MAX_KEY_BYTES: Final = 4096

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the workflows stand on."""

    store: Store
    vault: VaultClient
    looker: VaultClient | None
    guard: ClockGuard
    attestation: Attestation
    installation: str
    key: Secret[bytes]


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
        self._leases: list[Lease] = []

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
        parts = await self._parts()
        workflows, duties = self._workflows(parts)
        watch = Watch(parts.store, workflows.locks, clock, settings.automatic_locks)

        async def record(event: AuditEvent) -> None:
            await parts.store.write(lambda conn: events.append(conn, [event]))

        async def ready() -> None:
            await parts.store.check()
            await parts.vault.check()
            parts.guard.check()
            await parts.attestation.check()

        server = Server(
            settings,
            build(workflows, settings),
            identify=Identify(parts.attestation, RoleRules(settings.access), parts.store),
            record=record,
            ready=ready,
            trust_bundle=parts.attestation.trust_bundle_pem,
            clock=clock,
            check_clock=parts.guard.check,
            observers=self._observers(watch),
            share_ports=self._share_ports,
        )
        for duty in (*duties, watch):
            self._background.append(duty.start())
            held.push_async_callback(duty.stop)
        for working in (workflows.issuer, workflows.takeback):
            held.push_async_callback(working.drain)
        self._background.append(asyncio.create_task(self._reload(parts.attestation), name="reload"))
        held.callback(self._background[-1].cancel)
        await self._measure(parts, server)
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

    def _observers(self, watch: Watch) -> list[Observer]:
        """Begin to observe steps, and return who is told of requests."""
        observers: list[Observer] = [lambda call, _: lambda ended: watch.note(call, ended.reason)]
        if self._settings.metrics is not None:
            from broker import metrics

            self._exit.callback(observe(metrics.step_observer(self._clock)))
            observers.append(metrics.observe_request)
        if self._settings.traces is not None:
            from broker.traces import Tracing  # its libraries take long to load

            tracing = Tracing(self._settings.traces, RELEASE, self.name)
            self._exit.push_async_callback(tracing.stop)
            self._exit.callback(observe(tracing.observe_step))
            observers.append(tracing.observe_request)
        return observers

    def _confirmed(self) -> Confirmed | None:
        """Return who is told of confirmed revocations."""
        if self._settings.metrics is None:
            return None
        from broker import metrics  # its library is 1.5 MB

        return metrics.revocation_confirmed

    async def _measure(self, parts: _Parts, server: Server) -> None:
        """Keep the gauges fresh, and let them be scraped, unless whoever started this process does that."""
        if self._settings.metrics is None:
            return
        from broker import metrics, scrape
        from broker.gauges import Gauges

        metrics.set_build(RELEASE)

        def reading() -> metrics.Reading:
            return metrics.Reading(
                ready=server.is_ready,
                requests=server.requests,
                requests_waiting=server.requests_waiting,
                writes_waiting=parts.store.writes_waiting,
                reads=parts.store.reads_in_progress,
                vault_token_left=min(login.seconds_left for login in self._logins),
                clock_difference=parts.guard.difference,
                leases={lease.name: lease.is_held for lease in self._leases},
            )

        gauges = Gauges(parts.store, self._clock, reading)
        self._background.append(gauges.start())
        self._exit.push_async_callback(gauges.stop)
        if not scrape.one_of_several():
            listening = scrape.listening(self._settings.metrics.address, metrics.render)
            self.addresses["metrics"] = await self._exit.enter_async_context(listening)

    async def _clock_guard(self, vault: VaultClient) -> ClockGuard:
        """Return what compares the clocks, once Vault has told its time, before anything is decided by ours."""
        with suppress(VaultUnavailable):
            await vault.check()
        return ClockGuard(vault.clock_difference, self._settings.vault.max_clock_difference, self._clock)

    async def _parts(self) -> _Parts:
        """Build what the workflows stand on."""
        settings, held = self._settings, self._exit
        key = read_key(settings.fingerprint_key_file)
        store = Store(Secret(settings.database.url.get_secret_value()))
        await store.start()
        held.push_async_callback(store.close)
        await store.check()
        installation = await store.read(installation_id)
        vault = await self._vault(settings.vault.auth, installation)
        reaper_auth = settings.vault.reaper_auth
        looker = await self._vault(reaper_auth, installation) if reaper_auth else None
        guard = await self._clock_guard(vault)
        attestation = Attestation(settings.attestors, self._clock)
        held.push_async_callback(attestation.close)
        return _Parts(store, vault, looker, guard, attestation, installation, key)

    def _workflows(self, parts: _Parts) -> tuple[Workflows, tuple[Revoker | Duty, ...]]:
        """Build the workflows, and what goes on in the background."""
        settings, clock, store, vault = self._settings, self._clock, parts.store, parts.vault
        rules = PolicyCache(lambda record: compile_scope(record, parse_document(record.document, MAPPINGS)))
        anchors = Anchors(store, vault, clock, self.name)
        revoker = Revoker(store, vault, clock, self.name, self._confirmed())
        undo = Undo(store, vault, anchors, revoker, clock)
        wait = settings.limits.revocation_wait
        locks = Locks(store, revoker, clock, wait)
        workflows = Workflows(
            tasks=Tasks(store, rules, anchors, revoker, wait),
            issuer=Issuer(store, vault, Deciding(store, rules, clock), anchors, revoker, undo, parts.key),
            holdings=Holdings(store, vault, rules, revoker, wait),
            scopes=Scopes(store, rules),
            locks=locks,
            takeback=Takeback(store, revoker, clock, wait),
            status=Status(store, vault, parts.guard, self.name, RELEASE),
            query=Query(store),
        )
        presence = Presence(store, clock, self.name, RELEASE)
        sweep, reap = self._leases = [Lease(store, clock, name, self.name) for name in ("sweep", "reap")]
        sweeper = Sweeper(store, vault, anchors, revoker, locks, clock, sweep, parts.guard)
        reaper = Reaper(
            store,
            vault,
            parts.looker,
            revoker,
            clock,
            reap,
            settings.vault.reap_interval,
            parts.installation,
            parts.guard.in_doubt,
        )
        return workflows, (presence, revoker, sweeper, reaper)

    async def _vault(self, auth: VaultAuth, installation: str) -> VaultClient:
        settings: Vault = self._settings.vault
        login = VaultLogin(settings, auth, self._clock)
        await login.start()
        self._logins.append(login)
        self._exit.push_async_callback(login.stop)
        client = VaultClient(settings, login, self._clock, installation)
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
