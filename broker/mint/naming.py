"""Names of the Vault policies and token roles that belong to scopes."""

import hashlib
import json

from broker.document import CredentialMapping

PREFIX = "credbroker-"
ANCHOR_POLICY = "credbroker-anchor"
BROKER_POLICY = "credbroker-broker"
PROVISIONER_POLICY = "credbroker-provisioner"
REAPER_POLICY = "credbroker-reaper"

# Of each scope the mapping whose name was last asked for.
_newest: dict[str, tuple[CredentialMapping, str]] = {}


def role_name(scope: str, mapping: CredentialMapping) -> str:
    """Return the name of a scope's token role and policy.

    The name holds a digest of the mapping, so that a changed mapping gets a
    role of its own and what an earlier version issued keeps the rights it was
    issued with. Values that equal their defaults do not count.
    """
    named = _newest.get(scope)
    if named is None or named[0] is not mapping:
        named = _newest[scope] = mapping, _role_name(scope, mapping)
    return named[1]


def _role_name(scope: str, mapping: CredentialMapping) -> str:
    canonical = json.dumps(
        mapping.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
    )
    return f"{PREFIX}{scope}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
