"""Credentials as environment variables, JSON or a single value."""

import json
import re
import shlex
from collections.abc import Iterable

from credbroker._client import Credential
from credbroker.cli._wanted import Wanted

# Where this library and its command look for their own settings.
_OWN = "CREDBROKER_"
_VAULT = {"VAULT_TOKEN": "token", "VAULT_ADDR": "vault_address", "VAULT_NAMESPACE": "vault_namespace"}


class Unusable(Exception):
    """The credential is fine, and cannot be shown as the command line wants it."""


def variables(credential: Credential, wanted: Wanted) -> dict[str, str]:
    """Return a credential as environment variables.

    Raises:
        Unusable: when names collide or are reserved, or a value cannot be one.
    """
    found: dict[str, str] = {}
    for name, key in _names(credential, wanted):
        text = _text(credential, key)
        if name == "VAULT_NAMESPACE" and not text:
            continue
        if name in found:
            raise Unusable(f"{credential.scope}: two values would be {name}; name them with --env")
        if name.startswith(_OWN):
            raise Unusable(f"{credential.scope}: {name} has its own meaning; choose another with --prefix or --env")
        if "\0" in text:
            raise Unusable(f"{credential.scope}: {key} cannot be an environment variable")
        found[name] = text
    return found


def merge(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    """Put the variables of several credentials together.

    Raises:
        Unusable: when two would have the same name.
    """
    merged: dict[str, str] = {}
    for part in parts:
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise Unusable(f"two scopes would set {twice[0]}; name one of them with --prefix or --env")
        merged |= part
    return merged


def as_exports(values: dict[str, str]) -> str:
    """Return lines for a POSIX shell to evaluate."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def as_json(credential: Credential, task_id: str | None) -> str:
    """Return a credential and the facts about it."""
    facts = {
        "task_id": task_id,
        "issuance_id": credential.issuance_id,
        "scope": credential.scope,
        "kind": credential.kind,
        "expires_at": credential.expires_at.isoformat(),
        "max_expires_at": credential.max_expires_at.isoformat(),
        "renewable": credential.renewable,
        "revocability": credential.revocability.value,
        "data": {key: credential[key] for key in credential},
    }
    return json.dumps(facts, indent=2) + "\n"


def as_value(credential: Credential, key: str | None) -> str:
    """Return one value: the one named, or the token of a Vault token.

    Raises:
        Unusable: when there is no such value, or none is named and there is no token.
    """
    if key is None and credential.kind != "vault_token":
        raise Unusable(f"{credential.scope}: choose a value with --field: {', '.join(credential.keys())}")
    return _text(credential, key or "token") + "\n"


def _names(credential: Credential, wanted: Wanted) -> Iterable[tuple[str, str]]:
    if wanted.names:
        return wanted.names.items()
    if wanted.prefix is None and credential.kind == "vault_token":
        return _VAULT.items()
    prefix = _upper(wanted.scope) if wanted.prefix is None else wanted.prefix
    return [(f"{prefix}_{_upper(key)}", key) for key in credential]


def _upper(text: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", text.upper())


def _text(credential: Credential, key: str) -> str:
    if key not in credential:
        raise Unusable(f"{credential.scope}: there is no {key}; there are: {', '.join(credential.keys())}")
    value = credential[key]
    return value if isinstance(value, str) else json.dumps(value)
