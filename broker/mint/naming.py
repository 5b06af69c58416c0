"""Names of the Vault policies and token roles that belong to scopes."""

import hashlib
import json

from broker.document import CredentialMapping

PREFIX = "credbroker-"
ANCHOR_POLICY = "credbroker-anchor"
BROKER_POLICY = "credbroker-broker"
PROVISIONER_POLICY = "credbroker-provisioner"
REAPER_POLICY = "credbroker-reaper"


def role_name(scope: str, mapping: CredentialMapping) -> str:
    """Return the name of a scope's token role and policy.

    The name holds a digest of the mapping, so that a changed mapping gets a
    role of its own and what an earlier version issued keeps the rights it was
    issued with. Values that equal their defaults do not count.
    """
    canonical = json.dumps(
        mapping.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
    )
    return f"{PREFIX}{scope}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
