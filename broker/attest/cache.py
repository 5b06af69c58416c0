"""Identities that were established a short while ago."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.attest.evidence import Evidence
from broker.attest.kind import RoutedAttestor
from broker.model import Identity

MAX_ENTRIES: Final = 4096
MAX_AGE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Entry:
    identity: Identity
    until: datetime
    attestor: RoutedAttestor
    generation: int


class IdentityCache:
    """Remembers identities by the whole evidence, while the keys behind them stay the same.

    What has left the cache is verified again, and that alone says whether it
    has expired. The one that was used least recently makes room.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[type[Evidence], bytes], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, kind: type[Evidence], digest: bytes, now: datetime) -> Identity | None:
        """Return the identity that was established from this evidence, if that still holds.

        Args:
            kind: The type of the evidence; one kind's bytes are never another's.
            digest: SHA-256 of the whole evidence.
            now: The current time.
        """
        key = (kind, digest)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.until or entry.generation != entry.attestor.generation:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry.identity

    def keep(
        self,
        kind: type[Evidence],
        digest: bytes,
        identity: Identity,
        attestor: RoutedAttestor,
        generation: int,
        now: datetime,
    ) -> None:
        """Remember an identity, unless its evidence is for one use.

        Args:
            kind: The type of the evidence.
            digest: SHA-256 of the whole evidence.
            identity: What was established.
            attestor: By whom.
            generation: Of the attestor's keys, read before it verified.
            now: The current time.
        """
        if identity.proof is not None:
            return
        until = min(identity.expires_at, now + MAX_AGE)
        self._entries[(kind, digest)] = _Entry(identity, until, attestor, generation)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
