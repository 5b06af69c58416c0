"""The folder of a development stack: who uses it, and what stays between two runs."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from broker.dev.files import write_private
from broker.dev.pki import DevAuthority
from broker.dev.processes import LEFTOVER_SECONDS, free_port
from broker.errors import Unavailable

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of loopback that the stack's servers listen on."""

    openbao: int
    postgres: int
    issuer: int
    bearer: int
    mutual: int


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep the folder for this process; made when it is not there.

    The lock goes with the process, however it ends.

    Raises:
        Unavailable: when another process has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = f"another development stack runs in {folder}; end it, or use another folder with --data"
            raise Unavailable(text, message=text) from None
        yield
    finally:
        os.close(descriptor)


def choose_ports(folder: Path) -> Ports:
    """Return the ports of the last run in this folder, so that what people noted down stays right.

    What a killed run left behind may need a moment to notice that and end; a
    port that stays taken is replaced by a free one.
    """
    file = folder / "ports.json"
    names = [field.name for field in fields(Ports)]
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    chosen: dict[str, int] = {}
    for name in names:
        port = known.get(name)
        chosen[name] = port if isinstance(port, int) and _becomes_free(port) else _another(set(chosen.values()))
    ports = Ports(**chosen)
    file.write_text(json.dumps(asdict(ports), indent=2))
    return ports


def _another(taken: set[int]) -> int:
    while (port := free_port()) in taken:
        pass
    return port


def _becomes_free(port: int) -> bool:
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while not _free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: only a listener counts, not connections that are fading away.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def load_authority(folder: Path) -> DevAuthority:
    """Return the folder's certificate authority; made in the first run."""
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if certificate.exists() and key.exists():
        return DevAuthority.load(certificate.read_bytes(), key.read_bytes())
    authority = DevAuthority()
    write_private(key, authority.key_pem)
    certificate.write_bytes(authority.certificate_pem)
    return authority
