"""The development stack: OpenBao, PostgreSQL, a token issuer and the broker, on loopback, in one folder."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from broker.dev import databases, server, vault
from broker.dev.home import Ports, choose_ports, load_authority, occupied
from broker.dev.issuer import DevIssuer
from broker.dev.openbao import OpenBao
from broker.dev.people import Evidence
from broker.dev.pki import DevAuthority
from broker.dev.postgres import Postgres
from broker.dev.processes import ManagedProcess
from broker.secret import SecretText

EXAMPLE_SCOPES = Path(__file__).with_name("scopes")

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, and where.

    Attributes:
        folder: Everything it keeps.
        ports: Where its servers listen on 127.0.0.1.
        ca_file: CA certificate of all of them.
        evidence: Tokens and certificates of the admin, the auditor and the agent.
        provisioner: Vault token for applying scopes.
    """

    folder: Path
    ports: Ports
    authority: DevAuthority
    openbao: OpenBao
    postgres: Postgres
    issuer: DevIssuer
    broker: ManagedProcess
    evidence: Evidence
    provisioner: SecretText

    @property
    def ca_file(self) -> Path:
        """CA certificate of everything that listens."""
        return self.folder / "ca.pem"

    @property
    def address(self) -> str:
        """The broker, for callers with a token."""
        return f"127.0.0.1:{self.ports.bearer}"

    @property
    def mutual_address(self) -> str:
        """The broker, for callers with an X.509-SVID."""
        return f"127.0.0.1:{self.ports.mutual}"

    def variables(self, who: str) -> dict[str, str]:
        """Return the environment in which a command acts as ``admin``, ``auditor`` or ``agent``."""
        return {
            "CREDBROKER_ADDRESS": self.address,
            "CREDBROKER_CA_FILE": str(self.ca_file),
            "CREDBROKER_TOKEN_FILE": str(self.evidence.token_file(who)),
        }

    def vault_variables(self) -> dict[str, str]:
        """Return the environment in which a command may provision Vault."""
        return {
            "VAULT_ADDR": self.openbao.address,
            "VAULT_CACERT": str(self.openbao.ca_file),
            "VAULT_TOKEN": self.provisioner.reveal(),
        }

    def refresh_evidence(self) -> None:
        """Replace tokens and certificates by fresh ones."""
        self.evidence.write(self.issuer, self.authority)


@contextmanager
def running(folder: Path, progress: Progress = lambda _: None) -> Iterator[Stack]:
    """Run a stack, on new data or on what an earlier run has left in the folder.

    Whatever happens, everything that was started is ended in reverse order.

    Args:
        folder: Where it lives; made when it is not there.
        progress: Told in a few words what comes next.

    Raises:
        Unavailable: when a part does not come up; says how its log ends.
    """
    folder = folder.absolute()
    with ExitStack() as started:
        started.enter_context(occupied(folder))
        ports, authority = choose_ports(folder), load_authority(folder)
        progress("starting OpenBao, PostgreSQL and a token issuer")
        openbao, postgres = _start_servers(folder, ports, authority, started)
        issuer = started.enter_context(DevIssuer.start(folder / "issuer", authority, port=ports.issuer))
        progress("preparing Vault and the databases")
        password = vault.load_or_make_password(folder / "vault-database-password")
        databases.prepare(postgres, password)
        identities = vault.prepare(openbao, postgres, password, folder)
        progress("starting the broker")
        settings = server.write_config(folder / "broker", ports, authority, openbao, identities, postgres, issuer)
        broker = started.enter_context(server.serve(settings, ports.bearer, folder / "ca.pem"))
        evidence = Evidence(folder / "evidence")
        provisioner = identities.provisioner
        stack = Stack(folder, ports, authority, openbao, postgres, issuer, broker, evidence, provisioner)
        stack.refresh_evidence()
        progress("applying the example scopes")
        _apply_examples(stack)
        yield stack


def _start_servers(folder: Path, ports: Ports, authority: DevAuthority, started: ExitStack) -> tuple[OpenBao, Postgres]:
    """Start both at once; each takes seconds, most of which it waits."""
    with ThreadPoolExecutor(2) as pool:
        openbao = pool.submit(OpenBao.start, folder / "openbao", port=ports.openbao, keep=True, authority=authority)
        postgres = pool.submit(Postgres.start, folder / "postgres", port=ports.postgres)
        both: tuple[Future[OpenBao] | Future[Postgres], ...] = (openbao, postgres)
        try:
            for future in both:
                future.exception()
        finally:
            # Also after Ctrl-C: one of them may be up, or about to be.
            for future in both:
                if future.exception() is None:
                    started.callback(future.result().stop)
        return openbao.result(), postgres.result()


def _apply_examples(stack: Stack) -> None:
    """Apply the example scopes in the first run; later the folder's copy is its user's."""
    copy = stack.folder / "scopes"
    if copy.exists():
        return
    variables = stack.variables("admin") | stack.vault_variables()
    server.run_command("scopes", "apply", "--yes", str(EXAMPLE_SCOPES), variables=variables)
    shutil.copytree(EXAMPLE_SCOPES, copy)
