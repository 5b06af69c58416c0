"""The broker's books on Vault's tokens: which should be alive."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

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


@dataclass(frozen=True, slots=True)
class Books:
    """The accessors of all tokens that Vault should know.

    Attributes:
        anchors: Accessors of active anchors, with the anchors' identifiers.
        issuances: Accessors behind living issuances, with the issuances'
            identifiers.
        revoking: Accessors that Vault is asked to revoke.
    """

    anchors: Mapping[str, str]
    issuances: Mapping[str, str]
    revoking: frozenset[str]

    @property
    def living(self) -> frozenset[str]:
        """All of them."""
        return self.revoking.union(self.anchors, self.issuances)


def read_books(conn: Connection) -> Books:
    """Return what is alive by the records."""
    return Books(
        anchors={row.accessor: row.id for row in conn.execute(_ANCHORS)},
        issuances={row.accessor: row.id for row in conn.execute(_ISSUANCES)},
        revoking=frozenset(conn.execute(_REVOKING).scalars()),
    )
