"""hvac set up the way the broker wants it, for everything off the hot path."""

import math
import ssl
from datetime import timedelta
from pathlib import Path

import hvac
import requests

from broker.secret import Secret


def sync_client(
    address: str,
    *,
    token: Secret[str] | None = None,
    namespace: str = "",
    ca_file: Path | None = None,
    timeout: timedelta = timedelta(seconds=30),
) -> hvac.Client:
    """Return a client that follows no redirects and reads no proxy settings or tokens from the environment.

    Args:
        address: Base URL.
        token: Vault token; none for calls before a login.
        namespace: Vault namespace; empty for the root namespace.
        ca_file: CA bundle, PEM; the system's by default.
        timeout: For one call.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = str(ca_file) if ca_file else ssl.get_default_verify_paths().cafile or True
    return hvac.Client(
        url=address,
        token=token.reveal() if token else "",
        namespace=namespace or None,
        session=session,
        timeout=math.ceil(timeout.total_seconds()),
        allow_redirects=False,
    )
