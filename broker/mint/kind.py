"""What every credential kind provides. One module per kind, listed in `broker.mint.KINDS`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from broker.document import CredentialMapping
from broker.mint.vault import VaultClient
from broker.model import Anchor, Issuance, JsonObject, JsonValue, Revocability
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be minted: decided, validated.

    Attributes:
        issuance_id: The record it is for.
        policy: Name of the scope's Vault policy (`broker.mint.naming`).
        mapping: The scope's credential mapping.
        parameters: Granted parameters.
        ttl: Granted time to live.
        max_ttl: The most that renewals can reach, from now.
    """

    issuance_id: str
    policy: str
    mapping: CredentialMapping
    parameters: JsonObject
    ttl: timedelta
    max_ttl: timedelta


@dataclass(frozen=True, slots=True)
class Holder:
    """A service child of the anchor that one issuance's lease hangs from.

    Its accessor is committed before the engine is read with it.
    """

    accessor: str
    token: Secret[str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Minted:
    """What Vault made.

    Attributes:
        secret: What the agent gets. ``{"token": …}`` for Vault tokens; the
            engine's data for leased secrets.
        expires_at: From the time to live that Vault returned, counted from
            before the request was sent.
        max_expires_at: The latest time renewals can reach.
        accessor: Set for service tokens and holders.
        lease_id: Set for leased secrets.
        renewable: Whether it can be prolonged.
    """

    secret: Secret[dict[str, JsonValue]]
    expires_at: datetime
    max_expires_at: datetime
    accessor: str | None = None
    lease_id: str | None = None
    renewable: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One path of a Vault policy with its capabilities."""

    path: str
    capabilities: tuple[str, ...]


class CredentialKind(Protocol):
    """How one kind of credential is minted, renewed and provisioned."""

    @property
    def mapping(self) -> type[CredentialMapping]:
        """The model of ``spec.credential`` for this kind."""
        ...

    def policy(self, mapping: CredentialMapping) -> tuple[PolicyRule, ...]:
        """Return what the scope's Vault policy must allow."""
        ...

    def revocability(self, mapping: CredentialMapping) -> Revocability:
        """Say how credentials of this mapping can be taken back."""
        ...

    def parameters(self, mapping: CredentialMapping) -> Mapping[str, bool]:
        """Return the parameters that the mapping uses, and whether each must be text."""
        ...

    def check(self, mapping: CredentialMapping, parameters: JsonObject) -> None:
        """Check that the parameters can be put where the mapping wants them.

        Raises:
            ParametersInvalid: when a value is not allowed in a Vault path.
        """
        ...

    async def prepare(self, vault: VaultClient, anchor: Anchor, order: Order) -> Holder | None:
        """Create what must be recorded before `mint`; None when nothing must be.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused.
        """
        ...

    async def mint(self, vault: VaultClient, anchor: Anchor, holder: Holder | None, order: Order) -> Minted:
        """Mint the credential.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused.
        """
        ...

    async def renew(self, vault: VaultClient, issuance: Issuance, ttl: timedelta) -> datetime:
        """Prolong a renewable credential and return when it now expires.

        Raises:
            VaultUnavailable: when Vault did not answer.
            NotRenewable: when Vault refused to prolong it.
            IssuanceEnded: when Vault no longer knows it.
        """
        ...
