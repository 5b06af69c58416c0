"""Looking in Vault's books: which tokens there are marked as this broker's."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from broker.mint.anchor import ANCHOR_META
from broker.mint.children import ISSUANCE_META
from broker.mint.replies import text
from broker.mint.vault import INSTALLATION_META, VaultClient

_LOOKERS = 16


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token in Vault's books that carries this broker's mark.

    Attributes:
        accessor: Its accessor.
        anchor_id: The anchor it was made as, if it was.
        issuance_id: The issuance it was made for, if it was.
        created_at: When, by Vault's clock.
    """

    accessor: str
    anchor_id: str | None
    issuance_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """What looking brought: the broker's own tokens, and accessors of tokens that are not the broker's."""

    own: tuple[FoundToken, ...]
    foreign: frozenset[str]


async def look_up_all(vault: VaultClient, accessors: Iterable[str], installation: str) -> Found:
    """Look at tokens and tell this broker's from others.

    Args:
        vault: Vault, with an identity that may look tokens up.
        accessors: Which tokens.
        installation: What this broker's tokens are marked with.

    Raises:
        VaultUnavailable: when Vault did not answer.
        MintFailed: when Vault refused.
    """
    own: list[FoundToken] = []
    foreign: set[str] = set()
    left = iter(accessors)
    try:
        async with asyncio.TaskGroup() as lookers:
            for _ in range(_LOOKERS):
                lookers.create_task(_look(vault, left, installation, own.append, foreign.add))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return Found(tuple(own), frozenset(foreign))


async def _look(
    vault: VaultClient,
    left: Iterator[str],
    installation: str,
    own: Callable[[FoundToken], None],
    foreign: Callable[[str], None],
) -> None:
    for accessor in left:
        token = await vault.look_up_token(accessor)
        if token is None:
            continue  # gone meanwhile
        if text(token.meta, INSTALLATION_META) != installation:
            foreign(accessor)
        else:
            anchor_id, issuance_id = text(token.meta, ANCHOR_META), text(token.meta, ISSUANCE_META)
            own(FoundToken(accessor, anchor_id, issuance_id, token.created_at))
