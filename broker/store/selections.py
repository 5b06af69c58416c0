"""How much of what is out a selection means."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, func, not_, select

from broker.model import LIVE_ISSUANCES, IssuanceState, Revocability, Selection
from broker.store import schema
from broker.store.columns import constant

_table = schema.issuances
_live = _table.c.state.in_([constant(state) for state in LIVE_ISSUANCES])
_revoking = _table.c.state == constant(IssuanceState.REVOKING)
_minting = _table.c.state == constant(IssuanceState.MINTING)
_at_expiry = _table.c.revocability == constant(Revocability.AT_EXPIRY)
_expiring = and_(not_(_revoking), not_(_minting), _at_expiry)
_revocable = and_(not_(_revoking), not_(_expiring))


@dataclass(frozen=True, slots=True)
class Extent:
    """How many issuances a selection means.

    Attributes:
        matching: Alive, selected and revocable.
        siblings: Alive and not selected, but revoked with those: they hang
            from the same anchor as one that cannot be revoked by itself.
        expiring: Alive and selected, but nothing ends them before their time.
        earlier: Selected, put up for revocation before and not confirmed yet.
        last_expires_at: When the last of the expiring ones ends.
    """

    matching: int
    siblings: int
    expiring: int
    earlier: int
    last_expires_at: datetime | None


def extent(conn: Connection, wanted: Selection) -> Extent:
    """Count what a selection means.

    Raises:
        ValueError: when nothing is given: everything is never meant.
    """
    given = wanted.given()
    if not given:
        raise ValueError("a selection must say what it selects")
    values = {f"{name}_": value for name, value in given.items()}
    matching, expiring, earlier, last = conn.execute(_counting(tuple(given)), values).one()
    siblings = conn.execute(_counting_siblings(tuple(given)), values).scalar_one()
    return Extent(int(matching), int(siblings), int(expiring), int(earlier), last)


@cache
def _counting(names: tuple[str, ...]) -> Select[Any]:
    counted: list[ColumnElement[Any]] = [
        func.count(case((_revocable, 1))),
        func.count(case((_expiring, 1))),
        func.count(case((_revoking, 1))),
        func.max(case((_expiring, _table.c.expires_at))),
    ]
    return select(*counted).where(_live, *_conditions(names))


@cache
def _counting_siblings(names: tuple[str, ...]) -> Select[Any]:
    anchors = select(_table.c.anchor_id).where(_live, _revocable, _table.c.accessor.is_(None), *_conditions(names))
    return select(func.count()).where(
        _live, _revocable, _table.c.anchor_id.in_(anchors), not_(and_(*_conditions(names)))
    )


def _conditions(names: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return [_table.c[name] == bindparam(f"{name}_") for name in names]
