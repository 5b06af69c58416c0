"""Vault as an admin reaches it while applying scopes: an identity of the admin, not of the broker."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import hvac

from broker.cli.changes import Change
from broker.cli.failures import MISUSED, Failure
from broker.cli.scope_files import ScopeFile
from broker.document import parse_document
from broker.mint import MAPPINGS, provision
from broker.secret import Secret

ENVIRONMENT = "VAULT_ADDR and VAULT_TOKEN"


def configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether the environment names a Vault and a token for it."""
    return bool(environ.get("VAULT_ADDR") and environ.get("VAULT_TOKEN"))


def admin_client(environ: Mapping[str, str] = os.environ) -> hvac.Client:
    """Return a client with the identity from the environment.

    Reads ``VAULT_ADDR``, ``VAULT_TOKEN``, ``VAULT_NAMESPACE`` and
    ``VAULT_CACERT``, as Vault's own command does.

    Raises:
        Failure: when address or token is missing.
    """
    if not configured(environ):
        raise Failure(
            f"{ENVIRONMENT} are not set",
            advice="set them to an identity that may write Vault's token roles and policies",
            exit_code=MISUSED,
        )
    ca_file = environ.get("VAULT_CACERT")
    return provision.admin_client(
        environ["VAULT_ADDR"],
        Secret(environ["VAULT_TOKEN"]),
        environ.get("VAULT_NAMESPACE", ""),
        Path(ca_file) if ca_file else None,
    )


def plan(client: hvac.Client, files: Sequence[ScopeFile]) -> list[Change]:
    """Return what applying these scopes would change in Vault."""
    return [change for file in files for change in provision.plan_scope(client, file.document)]


def apply(client: hvac.Client, files: Iterable[ScopeFile]) -> list[Change]:
    """Create or update the roles and policies of these scopes; the ones that already fit stay."""
    return [change for file in files for change in provision.apply_scope(client, file.document)]


def remove(client: hvac.Client, name: str, document: str) -> list[Change]:
    """Delete the role and policy of a scope, given its last document."""
    return list(provision.remove_scope(client, name, parse_document(document, MAPPINGS).spec.credential))
