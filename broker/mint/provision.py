"""Bringing Vault's policies and token roles to what scopes ask for. Admin time only, with an identity of its own."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import hvac
import hvac.exceptions
import requests

from broker.document import CredentialMapping, ScopeDocument
from broker.errors import MintFailed, VaultUnavailable
from broker.mint import KINDS, check_document
from broker.mint.naming import ANCHOR_POLICY, role_name
from broker.mint.paths import safe_segment
from broker.mint.policies import broker_policy, own_policies, policy_text, provisioner_policy, reaper_policy
from broker.mint.replies import errors_of, section
from broker.mint.sync_client import sync_client
from broker.model import JsonObject, JsonValue
from broker.secret import Secret

__all__ = [
    "Change",
    "admin_client",
    "apply_scope",
    "apply_setup",
    "broker_policy",
    "plan_scope",
    "plan_setup",
    "provisioner_policy",
    "reaper_policy",
    "remove_scope",
]

# Bounds a task's whole token tree in Vault itself, whatever the broker asks for.
MAX_ANCHOR_LIFE: Final = timedelta(hours=24)

Kind = Literal["role", "policy"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in Vault, as it is and as it will be; empty text where it does not exist."""

    action: Literal["create", "update", "delete", "none"]
    kind: Kind
    name: str
    before: str
    after: str


def admin_client(address: str, token: Secret[str], namespace: str = "", ca_file: Path | None = None) -> hvac.Client:
    """Return a client for the functions of this module.

    Args:
        address: Vault's base URL.
        token: Of an identity with the provisioner's policy, or a mightier one for the setup.
        namespace: Vault namespace; empty for the root namespace.
        ca_file: CA bundle, PEM; the system's by default.
    """
    return sync_client(address, token=token, namespace=namespace, ca_file=ca_file)


def plan_scope(client: hvac.Client, document: ScopeDocument) -> tuple[Change, ...]:
    """Return what a scope needs in Vault, compared with what is there.

    Raises:
        ScopeDocumentInvalid: when mapping and schema do not fit together.
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    check_document(document)
    mapping = document.spec.credential
    name = role_name(document.metadata.name, mapping)
    policy = policy_text(KINDS[mapping.kind].policy(mapping))
    # The policy first: a role whose policy is missing would mint tokens without rights.
    return (_compare(client, "policy", name, policy), _compare(client, "role", name, _role_text(_role(name))))


def apply_scope(client: hvac.Client, document: ScopeDocument) -> tuple[Change, ...]:
    """Make what `plan_scope` returns so, and return it. Applying twice changes nothing.

    Raises:
        ScopeDocumentInvalid: when mapping and schema do not fit together.
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    return _apply(client, plan_scope(client, document))


def remove_scope(client: hvac.Client, name: str, mapping: CredentialMapping) -> tuple[Change, ...]:
    """Remove a scope's role and policy, for one version of its mapping.

    Nothing can be minted with it any more, and what was minted loses its
    rights.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    full_name = role_name(name, mapping)
    return _apply(client, (_compare(client, "role", full_name, ""), _compare(client, "policy", full_name, "")))


def plan_setup(client: hvac.Client) -> tuple[Change, ...]:
    """Return what the broker's own identities need in Vault, compared with what is there.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    return tuple(_compare(client, "policy", name, text) for name, text in own_policies().items())


def apply_setup(client: hvac.Client) -> tuple[Change, ...]:
    """Make what `plan_setup` returns so, and return it. Applying twice changes nothing.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    return _apply(client, plan_setup(client))


def _role(name: str) -> dict[str, JsonValue]:
    """Return a token role with everything that Vault lets one set, so that nothing of an altered one stays."""
    return {
        "allowed_policies": [ANCHOR_POLICY, name],
        "orphan": True,
        "token_explicit_max_ttl": int(MAX_ANCHOR_LIFE.total_seconds()),
        "token_no_default_policy": True,
        "token_type": "service",
        "allowed_entity_aliases": [],
        "allowed_policies_glob": [],
        "disallowed_policies": [],
        "disallowed_policies_glob": [],
        "path_suffix": "",
        "renewable": False,
        "token_bound_cidrs": [],
        "token_num_uses": 0,
        "token_period": 0,
    }


def _role_text(role: Mapping[str, JsonValue]) -> str:
    """Return a role for people and for comparing: what is set, by name."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in sorted(role.items()) if value and key != "name"]
    return "\n".join(lines) + "\n"


def _compare(client: hvac.Client, kind: Kind, name: str, after: str) -> Change:
    before = _read(client, kind, name)
    if before == after:
        return Change("none", kind, name, before, after)
    action: Literal["create", "update", "delete"] = "update" if before and after else "create" if after else "delete"
    return Change(action, kind, name, before, after)


def _apply(client: hvac.Client, changes: Iterable[Change]) -> tuple[Change, ...]:
    made = tuple(changes)
    for change in made:
        if change.action == "delete":
            _ask(client, "DELETE", _path(change.kind, change.name))
        elif change.action != "none":
            body = {"policy": change.after} if change.kind == "policy" else _role(change.name)
            _ask(client, "POST", _path(change.kind, change.name), body)
    return made


def _read(client: hvac.Client, kind: Kind, name: str) -> str:
    reply = _ask(client, "GET", _path(kind, name))
    if not reply:
        return ""
    data = section(reply, "data")
    return _role_text(data) if kind == "role" else str(data.get("policy"))


def _path(kind: Kind, name: str) -> str:
    return f"{'auth/token/roles' if kind == 'role' else 'sys/policies/acl'}/{safe_segment(name)}"


def _ask(client: hvac.Client, method: str, path: str, body: JsonObject | None = None) -> dict[str, JsonValue]:
    """Send a request; an empty object stands for no content, and for what does not exist."""
    try:
        reply = client.adapter.request(method, f"/v1/{path}", json=body)
    except hvac.exceptions.InvalidPath as error:
        if error.errors == [] and method == "GET":
            return {}
        raise _unavailable(path, error) from None
    except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest) as error:
        words = f"Vault refused {path}: {'; '.join(errors_of({'errors': list(error.errors or ())}))}"
        raise MintFailed(words, message=words) from None
    except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
        raise _unavailable(path, error) from None
    if isinstance(reply, dict):
        return reply
    if reply.status_code != 204:
        raise VaultUnavailable(f"{path}: the answer is not Vault's")
    return {}


def _unavailable(path: str, error: Exception) -> VaultUnavailable:
    return VaultUnavailable(f"{path}: {type(error).__name__}")
