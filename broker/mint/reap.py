"""Looking in Vault's books for anchors whose creation was cut off."""

import asyncio
from collections.abc import Collection, Iterator

from broker.mint.anchor import ANCHOR_META
from broker.mint.vault import VaultClient

_LOOKERS = 16


async def find_anchors(vault: VaultClient, anchor_ids: Collection[str]) -> dict[str, str]:
    """Return the accessors of those of these anchors that exist in Vault.

    Every service token is looked at until all are found, so this is for rare
    use.

    Args:
        vault: Vault, with an identity that may list token accessors.
        anchor_ids: Identifiers of anchors, as in the tokens' metadata.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    wanted = set(anchor_ids)
    found: dict[str, str] = {}
    if not wanted:
        return found
    left = iter(await vault.list_accessors())
    try:
        async with asyncio.TaskGroup() as lookers:
            for _ in range(_LOOKERS):
                lookers.create_task(_look(vault, left, wanted, found))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return found


async def _look(vault: VaultClient, left: Iterator[str], wanted: set[str], found: dict[str, str]) -> None:
    for accessor in left:
        meta = await vault.token_meta(accessor)
        anchor_id = meta.get(ANCHOR_META) if meta is not None else None
        if isinstance(anchor_id, str) and anchor_id in wanted:
            found[anchor_id] = accessor
        if len(found) == len(wanted):
            return
