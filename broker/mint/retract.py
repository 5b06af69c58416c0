"""Taking back: revoke, and believe it only when Vault says that it knows the thing no more."""

from broker.mint.vault import VaultClient


async def retract(vault: VaultClient, accessor: str, lease_id: str | None, *, insist: bool = False) -> bool:
    """Revoke a token with everything that hangs from it, and look whether it is gone.

    Revoking what is gone already succeeds.

    Args:
        vault: Vault, with the broker's own token.
        accessor: The token's accessor.
        lease_id: The lease that hangs from it, if there is one.
        insist: An attempt has failed before. Then Vault's word that it has
            revoked the token is not enough: it says so as well when storage
            failed it halfway. The lease is revoked within the call: after six
            failed attempts of its own Vault calls a lease irrevocable, and does
            nothing more when merely told to revoke it some time.

    Returns:
        True when Vault knows neither any more; False when it was asked and is
        not done yet.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused; or when it was to revoke the lease
            within the call, and the engine could not.
    """
    # Vault answers 204 after it has removed the token's entry, its lease and its
    # accessor from storage, under the lease's lock: there is nothing to look for.
    # OpenBao: vault/token_store.go, handleUpdateRevokeAccessor and revokeInternal.
    revoked = await vault.revoke_token(accessor)
    known = (insist or not revoked) and await vault.knows_token(accessor)
    if lease_id is None or not await vault.knows_lease(lease_id):
        return not known
    # Vault revokes leases after it has answered, and not at all when revoking
    # the token was cut off. Asking for the lease itself starts it again.
    await vault.revoke_lease(lease_id, within_call=insist)
    return not known and not await vault.knows_lease(lease_id)


async def is_gone(vault: VaultClient, accessor: str, lease_id: str | None) -> bool:
    """Return whether Vault knows neither the token nor the lease any more.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    if await vault.knows_token(accessor):
        return False
    return lease_id is None or not await vault.knows_lease(lease_id)
