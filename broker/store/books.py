"""The broker's books on Vault's tokens: which should be alive, against what Vault says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Select, select

from broker.model import AnchorState, IssuanceState
from broker.store import schema
from broker.store.columns import constant

_anchors, _issuances, _revocations = schema.anchors, schema.issuances, schema.revocations

_ANCHORS = select(_anchors.c.accessor, _anchors.c.id).where(
    _anchors.c.state == constant(AnchorState.ACTIVE), _anchors.c.accessor.is_not(None)
)
_ISSUANCES = select(_issuances.c.accessor, _issuances.c.id).where(
    _issuances.c.state.in_([constant(IssuanceState.MINTING), constant(IssuanceState.ACTIVE)]),
    _issuances.c.accessor.is_not(None),
)
_REVOKING = select(_revocations.c.accessor).where(_revocations.c.confirmed_at.is_(None))

_FEW: Final = {"yield_per": 1000}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where Vault's list of accessors and the records differ.

    Attributes:
        anchors: Active anchors that are not listed: their identifiers by accessor.
        issuances: Living issuances whose tokens are not listed, likewise.
        unrecorded: What is listed and should not be alive by the records.
    """

    anchors: Mapping[str, str]
    issuances: Mapping[str, str]
    unrecorded: frozenset[str]


def compare(conn: Connection, listed: frozenset[str]) -> Difference:
    """Compare the records with the accessors that Vault listed before this transaction began.

    Records are read a few at a time: there may be as many as credentials are out.
    """
    unrecorded = set(listed)

    def unlisted(of_tokens: Select[str, str]) -> dict[str, str]:
        found = {}
        for accessor, identifier in conn.execute(of_tokens, execution_options=_FEW):
            if accessor in listed:
                unrecorded.discard(accessor)
            else:
                found[accessor] = identifier
        return found

    anchors, issuances = unlisted(_ANCHORS), unlisted(_ISSUANCES)
    unrecorded.difference_update(conn.execute(_REVOKING, execution_options=_FEW).scalars())
    return Difference(anchors, issuances, frozenset(unrecorded))
