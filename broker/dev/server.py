"""The broker of a development stack: the real command, as a child process."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2

from broker.dev.databases import BROKER_DATABASE
from broker.dev.files import write_private
from broker.dev.home import Ports
from broker.dev.issuer import AUDIENCE, DevIssuer
from broker.dev.openbao import OpenBao
from broker.dev.people import ADMINS, AUDITORS, TRUST_DOMAIN
from broker.dev.pki import DevAuthority
from broker.dev.postgres import Postgres
from broker.dev.processes import ManagedProcess
from broker.dev.vault import AppRole, VaultIdentities
from broker.errors import Unavailable

COMMAND_SECONDS = 60.0
# -P: what lies in the folder where somebody tries it out must not be imported.
COMMAND = (sys.executable, "-P", "-m", "broker")

_CERTIFICATE_LIFETIME = timedelta(days=90)
_EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


def write_config(
    folder: Path,
    ports: Ports,
    authority: DevAuthority,
    openbao: OpenBao,
    vault: VaultIdentities,
    postgres: Postgres,
    issuer: DevIssuer,
) -> Path:
    """Write ``broker.yaml`` and what it points to, and return its path."""
    folder.mkdir(mode=0o700, exist_ok=True)
    certificate, key = authority.issue(names=["localhost"], addresses=["127.0.0.1"], lifetime=_CERTIFICATE_LIFETIME)
    (folder / "server.pem").write_bytes(certificate)
    write_private(folder / "server.key", key)
    (folder / "trust-bundle.pem").write_bytes(authority.certificate_pem)
    if not (folder / "fingerprint.key").exists():
        write_private(folder / "fingerprint.key", secrets.token_bytes(32))
    keys = {"ca_file": str(issuer.ca_file), "allow_private": True}
    config = {
        "listen": {"bearer": _listener(ports.bearer), "mutual": _listener(ports.mutual)},
        "database": {"url": postgres.sqlalchemy_url(BROKER_DATABASE).reveal()},
        "vault": {
            "address": openbao.address,
            "ca_file": str(openbao.ca_file),
            "auth": _auth(vault.broker),
            "reaper_auth": _auth(vault.reaper),
        },
        "attestors": [
            {
                "kind": "oidc",
                "name": "people",
                "issuer": issuer.url,
                "audiences": [AUDIENCE],
                "jwks": {"url": issuer.jwks_url, **keys},
            },
            {
                "kind": "jwt_svid",
                "name": "workloads",
                "trust_domain": TRUST_DOMAIN,
                "audiences": [AUDIENCE],
                "bundle": {"url": issuer.bundle_url, **keys},
            },
            {
                "kind": "x509_svid",
                "name": "workloads-mtls",
                "trust_domain": TRUST_DOMAIN,
                "bundle": {"file": "trust-bundle.pem"},
            },
        ],
        "access": {
            "admin": [{"issuer": issuer.url, "claims": {"groups": ADMINS}}],
            "auditor": [{"issuer": issuer.url, "claims": {"groups": AUDITORS}}],
        },
        "fingerprint_key_file": "fingerprint.key",
        "reflection": True,
    }
    file = folder / "broker.yaml"
    write_private(file, yaml.safe_dump(config, sort_keys=False))
    return file


def _listener(port: int) -> dict[str, object]:
    return {"address": f"127.0.0.1:{port}", "tls": {"certificate": "server.pem", "private_key": "server.key"}}


def _auth(role: AppRole) -> dict[str, str]:
    return {"kind": "approle", "role_id": role.role_id, "secret_id_file": str(role.secret_id_file)}


def serve(config: Path, port: int, ca_file: Path, *, workers: int = 1) -> ManagedProcess:
    """Upgrade the database, start the broker, and return when all of it is ready for requests.

    Args:
        config: Its configuration, whose log is of format json.
        port: Of its bearer listener.
        ca_file: CA certificate of that listener.
        workers: How many processes serve; more than one have a supervisor.

    Raises:
        Unavailable: when it does not come up; says how its log ends.
    """
    run_command("db", "upgrade", "--config", str(config))
    log = config.with_name("broker.log")
    told_before = _told_ready(log)
    with health_check(port, ca_file) as serving:

        def ready() -> bool:
            # A connection reaches one worker; of the others the log alone tells.
            return serving() and (workers == 1 or _told_ready(log) - told_before >= workers)

        command = [*COMMAND, "serve", "--config", str(config), "--workers", str(workers)]
        return ManagedProcess.start("the broker", command, log=log, ready=ready, env=environment({}))


@contextmanager
def health_check(port: int, ca_file: Path) -> Iterator[Callable[[], bool]]:
    """Give what says whether a server on loopback serves.

    Args:
        port: Of its bearer listener.
        ca_file: CA certificate of that listener.
    """
    credentials = grpc.ssl_channel_credentials(ca_file.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, _EAGER) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

        def serving() -> bool:
            try:
                reply = check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                return False
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

        yield serving


def _told_ready(log: Path) -> int:
    """Return how often a broker has said in a log that it is ready."""
    return len(re.findall('"event": ?"ready"', log.read_text(errors="replace"))) if log.exists() else 0


def run_command(*words: str, variables: Mapping[str, str] | None = None) -> str:
    """Run a `broker` command as a user would, and return what it printed.

    Args:
        words: The command line.
        variables: Its CREDBROKER and VAULT variables.

    Raises:
        Unavailable: when it fails; says what it printed.
    """
    done = subprocess.run(
        [*COMMAND, *words],
        env=environment(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode != 0:
        text = f"`broker {' '.join(words)}` failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}"
        raise Unavailable(text, message=text)
    return done.stdout


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with no other CREDBROKER and VAULT variables than these."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("CREDBROKER_", "VAULT_"))}
    return {**others, **variables}
