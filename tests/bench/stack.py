"""What is measured: the broker as its own process, on real servers, as an operator would run it."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import grpc
import yaml
from credbroker.v1.lock_service_pb2_grpc import LockServiceStub

from broker.dev import databases, server, vault
from broker.dev.files import write_private
from broker.dev.home import Ports
from broker.dev.issuer import DevIssuer
from broker.dev.openbao import OpenBao
from broker.dev.people import ADMINS, TRUST_DOMAIN
from broker.dev.pki import DevAuthority
from broker.dev.postgres import Postgres
from broker.dev.processes import ManagedProcess, free_port
from broker.dev.vault import DATABASE_ROLE, VaultIdentities
from broker.secret import Secret, SecretText
from broker.store.engine import Engines, open_engines, parse_url
from tests.bench import processes
from tests.bench.figures import Span
from tests.bench.volume_fill import History, fill
from tests.bench.worker import Access

DatabaseKind = Literal["sqlite", "postgres"]
DATABASES: tuple[DatabaseKind, ...] = ("sqlite", "postgres")

_SCOPE = """
apiVersion: credbroker.dev/v1
kind: Scope
metadata: {{name: {name}}}
spec:
  who: [{{spiffeId: "spiffe://{domain}/agents/*"}}]
  credential: {credential}
  ttl: {{default: 15m, max: 30m}}
"""
_RULES = '[{path: "secret/data/reports/*", capabilities: [read]}]'
CREDENTIALS = {
    "batch": f"{{kind: vault_token, rules: {_RULES}}}",
    "service": f"{{kind: vault_token, token: service, rules: {_RULES}}}",
    "leased": f"{{kind: leased, path: database/creds/{DATABASE_ROLE}}}",
}


def scope_text(name: str, credential: str) -> str:
    """Return the document of a scope that gives one of `CREDENTIALS` to every agent."""
    return _SCOPE.format(name=name, domain=TRUST_DOMAIN, credential=CREDENTIALS[credential])


@dataclass(frozen=True, slots=True)
class Bench:
    """One scenario's own broker, on an empty database.

    Attributes:
        quick: Whether numbers are small: then only replies are judged.
        compare: Whether to measure also what one would use without a broker.
        broker: The serving process.
        database: Which kind of database it has.
        url: That database, for preparing and reading records.
        workers: How many processes serve.
        spans: Gets what each span of load did.
    """

    quick: bool
    compare: bool
    parts: "Parts"
    folder: Path
    ports: Ports
    broker: ManagedProcess
    database: DatabaseKind
    url: SecretText
    workers: int
    spans: list[Span] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The listener for callers with a token, ``host:port``."""
        return f"127.0.0.1:{self.ports.bearer}"

    @property
    def ca_file(self) -> Path:
        """CA certificate of everything that listens."""
        return self.parts.folder / "ca.pem"

    @property
    def access(self) -> Access:
        """What client processes need to reach the servers."""
        postgres = self.parts.postgres
        return Access(
            broker=self.address,
            vault=self.parts.openbao.address,
            reports=f"host={postgres.host} port={postgres.port} dbname={databases.REPORTS_DATABASE}",
            ca_file=str(self.ca_file),
        )

    def agents(self, count: int) -> list[str]:
        """Return tokens of that many agents."""
        return [
            self.parts.issuer.svid(f"spiffe://{TRUST_DOMAIN}/agents/agent-{number}").reveal() for number in range(count)
        ]

    def admin_token(self) -> str:
        """Return a token of an admin."""
        return self.parts.issuer.token("admin", claims={"groups": [ADMINS]}).reveal()

    def admin(self, *words: str) -> str:
        """Run a `broker` command as an admin who may also provision Vault, and return what it printed."""
        token, openbao = self.folder / "admin.jwt", self.parts.openbao
        write_private(token, self.admin_token())
        variables = {
            "CREDBROKER_ADDRESS": self.address,
            "CREDBROKER_CA_FILE": str(self.ca_file),
            "CREDBROKER_TOKEN_FILE": str(token),
            "VAULT_ADDR": openbao.address,
            "VAULT_CACERT": str(openbao.ca_file),
            "VAULT_TOKEN": self.parts.identities.provisioner.reveal(),
        }
        return server.run_command(*words, variables=variables)

    @property
    def scopes(self) -> Path:
        """Folder of its scopes' documents."""
        return self.folder / "scopes"

    def channel(self) -> grpc.aio.Channel:
        """Return a connection to the broker; the caller closes it."""
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca_file.read_bytes()))

    def locks(self, channel: grpc.aio.Channel) -> LockServiceStub:
        """Return the service of locks."""
        return LockServiceStub(channel)

    @contextmanager
    def records(self) -> Iterator[Engines]:
        """Give a way to the broker's database."""
        engines = open_engines(parse_url(self.url))
        try:
            yield engines
        finally:
            engines.dispose()

    def processor_time(self) -> float:
        """Return how many seconds the broker has been running on a processor, its workers together."""
        return processes.processor_time(self.broker.pid)

    def memory(self) -> float:
        """Return how much memory the broker holds, its workers together, in MiB."""
        return sum(held.resident for held in processes.memory(self.broker.pid))


@dataclass(frozen=True, slots=True)
class Parts:
    """The servers that all scenarios share."""

    folder: Path
    authority: DevAuthority
    openbao: OpenBao
    postgres: Postgres
    issuer: DevIssuer
    identities: VaultIdentities

    @contextmanager
    def broker(
        self,
        database: DatabaseKind,
        *,
        quick: bool,
        compare: bool,
        workers: int = 1,
        history: History | None = None,
    ) -> Iterator[Bench]:
        """Run a broker on a database of its own, with one scope of each kind of credential.

        Args:
            database: Which kind.
            quick: Whether numbers are small.
            compare: Whether to measure also what one would use without a broker.
            workers: How many processes serve.
            history: What the database holds from before; nothing by default.

        Raises:
            Unavailable: when it does not come up.
        """
        name = f"{database}-{secrets.token_hex(4)}"
        folder = self.folder / name
        ports = Ports(openbao=0, postgres=0, issuer=0, bearer=free_port(), mutual=free_port())
        config = server.write_config(
            folder, ports, self.authority, self.openbao, self.identities, self.postgres, self.issuer
        )
        url = self._database(database, name, folder)
        document = yaml.safe_load(config.read_text()) | {"database": {"url": url.reveal()}, "reflection": False}
        write_private(config, yaml.safe_dump(document))
        if history is not None:
            server.run_command("db", "upgrade", "--config", str(config))
            fill(url, history, self._anchor())
        with server.serve(config, ports.bearer, self.folder / "ca.pem", workers=workers) as process:
            bench = Bench(quick, compare, self, folder, ports, process, database, url, workers)
            self._apply_scopes(bench)
            yield bench

    def _anchor(self) -> Callable[[], str]:
        """Return what makes a token that Vault keeps for longer than any scenario takes, and returns its accessor."""
        tokens = self.openbao.client().auth.token

        def make() -> str:
            made = tokens.create_orphan(policies=["default"], ttl="1h")
            return str(made["auth"]["accessor"])

        return make

    def _database(self, kind: DatabaseKind, name: str, folder: Path) -> SecretText:
        if kind == "sqlite":
            return Secret(f"sqlite:///{folder / 'broker.db'}")
        self.postgres.create_database(name)
        return self.postgres.sqlalchemy_url(name)

    def _apply_scopes(self, bench: Bench) -> None:
        bench.scopes.mkdir()
        for name in CREDENTIALS:
            (bench.scopes / f"{name}.yaml").write_text(scope_text(name, name))
        bench.admin("scopes", "apply", "--yes", str(bench.scopes))


@contextmanager
def running(folder: Path) -> Iterator[Parts]:
    """Run OpenBao, PostgreSQL and an issuer; end them in any case.

    Raises:
        Unavailable: when one does not come up.
    """
    authority = DevAuthority()
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    with ExitStack() as started:
        with ThreadPoolExecutor(1) as pool:
            # Each takes seconds, most of which it waits.
            starting = pool.submit(Postgres.start, folder / "postgres")
            openbao = started.enter_context(OpenBao.start(folder / "openbao", authority=authority))
            postgres = started.enter_context(starting.result())
        issuer = started.enter_context(DevIssuer.start(folder / "issuer", authority))
        password = vault.load_or_make_password(folder / "vault-database-password")
        databases.prepare(postgres, password)
        identities = vault.prepare(openbao, postgres, password, folder)
        yield Parts(folder, authority, openbao, postgres, issuer, identities)
