"""How Vault is, for people: https://openbao.org/api-docs/system/health/."""

from dataclasses import dataclass
from datetime import timedelta

from broker.errors import VaultUnavailable
from broker.mint.replies import text, whole_seconds
from broker.mint.transport import Path
from broker.mint.vault import VaultClient

_HEALTH: Path = ("sys", "health")


@dataclass(frozen=True, slots=True)
class VaultHealth:
    """What is known of Vault.

    Attributes:
        problem: Why it cannot be used; empty when it can.
        version: Its version; empty when unknown.
        token_ttl: How long the broker's token lives if it is not renewed; None
            for ever, or unknown.
        clock_difference: Its time less the broker's, at the least; None when
            unknown.
    """

    problem: str = ""
    version: str = ""
    token_ttl: timedelta | None = None
    clock_difference: timedelta | None = None


async def examine(vault: VaultClient) -> VaultHealth:
    """Ask Vault how it is."""
    try:
        answer = await vault.look(_HEALTH)
    except VaultUnavailable as error:
        return VaultHealth(problem=error.detail)
    version = text(answer.body, "version") or ""
    ahead = vault.clock_difference()
    difference = None if ahead is None else -ahead
    try:
        own = await vault.check()
    except VaultUnavailable as error:
        return VaultHealth(problem=error.detail, version=version, clock_difference=difference)
    seconds = whole_seconds(own, "ttl")
    ttl = None if seconds is None else timedelta(seconds=seconds)
    return VaultHealth(version=version, token_ttl=ttl, clock_difference=difference)
