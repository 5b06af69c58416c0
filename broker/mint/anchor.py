"""Anchors: the tokens that everything issued for a task hangs from."""

from datetime import timedelta

from broker.errors import VaultUnavailable
from broker.mint.naming import ANCHOR_POLICY
from broker.mint.tokens import TokenRequest, seconds_of
from broker.mint.vault import VaultClient
from broker.model import Anchor

ANCHOR_META = "credbroker_anchor"
TASK_META = "credbroker_task"


async def create_anchor(
    vault: VaultClient, *, anchor_id: str, task_id: str, role: str, policy: str, ttl: timedelta
) -> Anchor:
    """Create an anchor: an orphan service token that nothing can prolong.

    Args:
        vault: Vault, with the broker's own token.
        anchor_id: The record it is for; written into the token's metadata.
        task_id: The task it is for; written there too.
        role: Name of the scope's token role.
        policy: Name of the scope's policy.
        ttl: How long it lives; whole seconds count.

    Raises:
        VaultUnavailable: when Vault did not answer: it may have been made.
        MintFailed: when Vault refused: nothing was made.
    """
    seconds = seconds_of(ttl)
    request = TokenRequest(
        type="service",
        policies=(policy, ANCHOR_POLICY),
        ttl=seconds,
        max_ttl=seconds,
        renewable=False,
        display_name=role,
        meta={ANCHOR_META: anchor_id, TASK_META: task_id},
    )
    made = await vault.create_token(request, role=role)
    if made.accessor is None:
        raise VaultUnavailable("Vault made an anchor without an accessor")
    return Anchor(
        id=anchor_id, task_id=task_id, role=role, accessor=made.accessor, token=made.token, expires_at=made.expires_at
    )
