"""Children of an anchor: how every kind asks for them and prolongs them."""

from datetime import datetime, timedelta

from broker.errors import IssuanceEnded, NotRenewable
from broker.mint.kind import Order
from broker.mint.replies import VaultRefused
from broker.mint.tokens import TokenRequest, seconds_of
from broker.mint.vault import VaultClient
from broker.model import Issuance

ISSUANCE_META = "credbroker_issuance"

_SECOND = timedelta(seconds=1)
_UNKNOWN = ("invalid accessor", "invalid lease", "lease not found")


def child_request(order: Order, *, individual: bool, renewable: bool) -> TokenRequest:
    """Return the request for a child with the scope's policy alone.

    Its metadata names the issuance, in Vault's audit log too.

    Args:
        order: What it is for.
        individual: Whether it can be revoked by itself: a service token.
        renewable: Whether it can be prolonged.

    Raises:
        MintFailed: when less than a second to live is left.
    """
    return TokenRequest(
        type="service" if individual else "batch",
        policies=(order.policy,),
        ttl=seconds_of(order.ttl),
        # A batch token cannot be prolonged and Vault takes no maximum for it.
        max_ttl=seconds_of(order.max_ttl) if individual else None,
        renewable=renewable,
        display_name=order.policy,
        meta={ISSUANCE_META: order.issuance_id},
    )


async def renew_child(vault: VaultClient, issuance: Issuance, ttl: timedelta) -> datetime:
    """Prolong a service child, and the lease that hangs from it.

    Returns:
        When the credential now expires, by what Vault returned, and never
        later than the issuance's maximum.

    Raises:
        VaultUnavailable: when Vault did not answer.
        NotRenewable: when it is not renewable, has reached its maximum, or
            Vault refused.
        IssuanceEnded: when Vault no longer knows it.
    """
    if issuance.accessor is None or not issuance.renewable:
        raise NotRenewable
    seconds = min(ttl, issuance.max_expires_at - vault.now()) // _SECOND
    if seconds < 1:
        raise NotRenewable("the maximum time to live is reached")
    try:
        expires_at = await vault.renew_token(issuance.accessor, seconds)
        if issuance.lease_id is not None:
            expires_at = min(expires_at, await vault.renew_lease(issuance.lease_id, seconds))
    except VaultRefused as refusal:
        if any(refusal.says(words) for words in _UNKNOWN):
            raise IssuanceEnded(refusal.detail) from None
        raise NotRenewable(refusal.detail) from None
    return min(expires_at, issuance.max_expires_at)
