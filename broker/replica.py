"""What the processes of an installation are called."""

import os
import secrets
import socket


def replica_name() -> str:
    """Return a name for this process that no other has."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
