"""Credentials that are Vault tokens themselves: children of the task's anchor with the scope's policy alone."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from broker.document import CredentialMapping, Strict
from broker.mint.children import child_request, renew_child
from broker.mint.kind import Holder, Minted, Order, PolicyRule
from broker.mint.paths import check_policy_path
from broker.mint.tokens import seconds_of
from broker.mint.vault import VaultClient
from broker.model import Anchor, Issuance, JsonObject, Revocability
from broker.secret import Secret

Capability = Literal["create", "read", "update", "patch", "delete", "list"]


class Rule(Strict):
    """One path and what the token may do there.

    Attributes:
        path: ``+`` stands for one whole segment, a final ``*`` for any rest.
        capabilities: Vault's capabilities; never ``sudo`` or ``root``.
    """

    path: Annotated[str, Field(max_length=512), AfterValidator(check_policy_path)]
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1, strict=False)]

    @field_validator("capabilities")
    @classmethod
    def _named_once(cls, value: tuple[Capability, ...]) -> tuple[Capability, ...]:
        if len(set(value)) != len(value):
            raise ValueError("must name each capability once")
        return value


class VaultTokenMapping(CredentialMapping):
    """A Vault token.

    Attributes:
        token: ``batch`` tokens are fast and die with the task; ``service``
            tokens can also be renewed, and revoked one by one.
        rules: What the token may do. It has no other policy.
    """

    kind: Literal["vault_token"]
    token: Literal["batch", "service"] = "batch"  # noqa: S105 - a type, no password
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=50, strict=False)]

    @property
    def individual(self) -> bool:
        """Whether its tokens can be taken back one by one."""
        return self.token != "batch"  # noqa: S105 - a type, no password


class VaultToken:
    """Mints Vault tokens."""

    mapping = VaultTokenMapping

    def policy(self, mapping: CredentialMapping) -> tuple[PolicyRule, ...]:
        """Return the mapping's rules."""
        return tuple(PolicyRule(rule.path, rule.capabilities) for rule in _own(mapping).rules)

    def revocability(self, mapping: CredentialMapping) -> Revocability:
        """Say how tokens of this mapping can be taken back."""
        return Revocability.INDIVIDUAL if _own(mapping).individual else Revocability.WITH_TASK

    def parameters(self, mapping: CredentialMapping) -> Mapping[str, bool]:
        """Return no parameters: none reaches Vault."""
        return {}

    def check(self, mapping: CredentialMapping, parameters: JsonObject) -> None:
        """Accept all parameters."""

    async def prepare(self, vault: VaultClient, anchor: Anchor, order: Order) -> Holder | None:
        """Do nothing: the token is the credential."""
        return None

    async def mint(self, vault: VaultClient, anchor: Anchor, holder: Holder | None, order: Order) -> Minted:
        """Create the token.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused.
        """
        before = vault.now()
        individual = _own(order.mapping).individual
        request = child_request(order, individual=individual, renewable=individual)
        made = await vault.create_token(request, parent=anchor.token)
        expires_at = min(made.expires_at, anchor.expires_at)
        renewals_end = min(before + timedelta(seconds=seconds_of(order.max_ttl)), anchor.expires_at)
        renewable = made.renewable and renewals_end > expires_at
        return Minted(
            secret=Secret({"token": made.token.reveal()}),
            expires_at=expires_at,
            max_expires_at=renewals_end if renewable else expires_at,
            accessor=made.accessor,
            renewable=renewable,
        )

    async def renew(self, vault: VaultClient, issuance: Issuance, ttl: timedelta) -> datetime:
        """Prolong a service token and return when it now expires.

        Raises:
            VaultUnavailable: when Vault did not answer.
            NotRenewable: when Vault refused to prolong it.
            IssuanceEnded: when Vault no longer knows it.
        """
        return await renew_child(vault, issuance, ttl)


def _own(mapping: CredentialMapping) -> VaultTokenMapping:
    if not isinstance(mapping, VaultTokenMapping):
        raise TypeError(f"{mapping.kind} is not a mapping of this kind")
    return mapping
