"""The Vault policies: those of the broker's own identities, and the text of each scope's."""

import json
from collections.abc import Iterable
from typing import Final

from broker.mint.kind import PolicyRule
from broker.mint.naming import ANCHOR_POLICY, BROKER_POLICY, PREFIX, PROVISIONER_POLICY, REAPER_POLICY

_OWN: Final = (ANCHOR_POLICY, BROKER_POLICY, PROVISIONER_POLICY, REAPER_POLICY)


def policy_text(rules: Iterable[PolicyRule]) -> str:
    """Return rules as the HCL of a Vault policy."""
    return "\n".join(
        f"path {json.dumps(rule.path)} {{\n  capabilities = {json.dumps(list(rule.capabilities))}\n}}\n"
        for rule in rules
    )


def anchor_policy() -> str:
    """Return what anchors may do: create their children."""
    return policy_text((PolicyRule("auth/token/create", ("update",)),))


def broker_policy() -> str:
    """Return what the broker may do: create anchors, and look after what hangs from them."""
    return policy_text(
        (
            PolicyRule(f"auth/token/create/{PREFIX}*", ("update",)),
            PolicyRule("auth/token/lookup-accessor", ("update",)),
            PolicyRule("auth/token/renew-accessor", ("update",)),
            PolicyRule("auth/token/revoke-accessor", ("update",)),
            PolicyRule("sys/leases/lookup", ("update",)),
            PolicyRule("sys/leases/renew", ("update",)),
            PolicyRule("sys/leases/revoke", ("update",)),
            *_own_token(),
        )
    )


def provisioner_policy() -> str:
    """Return what provisioning may do: manage the policies and roles of scopes, and not those of the broker itself."""
    manage = ("create", "read", "update", "delete")
    return policy_text(
        (
            PolicyRule(f"sys/policies/acl/{PREFIX}*", manage),
            # A longer path wins over the pattern above it.
            *(PolicyRule(f"sys/policies/acl/{name}", ("read",)) for name in _OWN),
            PolicyRule(f"auth/token/roles/{PREFIX}*", manage),
            *_own_token(),
        )
    )


def reaper_policy() -> str:
    """Return what reaping may do: list token accessors and look at the tokens."""
    return policy_text(
        (
            PolicyRule("auth/token/accessors", ("list", "sudo")),
            PolicyRule("auth/token/accessors/", ("list", "sudo")),
            PolicyRule("auth/token/lookup-accessor", ("update",)),
            PolicyRule("auth/token/revoke-accessor", ("update",)),
            *_own_token(),
        )
    )


def own_policies() -> dict[str, str]:
    """Return the policies of the broker's own identities, by name."""
    texts = (anchor_policy(), broker_policy(), provisioner_policy(), reaper_policy())
    return dict(zip(_OWN, texts, strict=True))


def _own_token() -> tuple[PolicyRule, ...]:
    return (
        PolicyRule("auth/token/lookup-self", ("read",)),
        PolicyRule("auth/token/renew-self", ("update",)),
    )
