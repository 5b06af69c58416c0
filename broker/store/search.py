"""How a filter is searched for: what of it an index leads to, and what is checked of each row.

Which index is used is decided here and not by the database, which would guess
from what it knows of the values: a wrong guess reads a whole table.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, and_, case

from broker.store.filters import Restriction

_BEFORE: Final = {"<": operator.lt, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Search:
    """One way to search for a filter; the list begins at the highest value of its order.

    Attributes:
        lead: The value that an index is asked for; None for everything.
        upper: Where in the order the search begins.
        lower: Where it ends.
        checked: Everything else.
    """

    lead: Restriction | None
    upper: Restriction | None
    lower: Restriction | None
    checked: tuple[Restriction, ...]

    def sought(
        self, after: ColumnElement[bool] | None, until: ColumnElement[bool] | None = None
    ) -> list[ColumnElement[bool]]:
        """Return what the index leads to.

        Args:
            after: Takes the place of the upper bound.
            until: Takes the place of the lower bound.
        """
        bounds = [self.upper.condition if after is None and self.upper is not None else after]
        bounds.append(self.lower.condition if until is None and self.lower is not None else until)
        lead = [] if self.lead is None else [self.lead.condition]
        return [*lead, *(bound for bound in bounds if bound is not None)]

    def checks(self) -> list[ColumnElement[bool]]:
        """Return what is checked of each row, in a form that keeps the database from looking for an index."""
        if not self.checked:
            return []
        return [case((and_(*(found.condition for found in self.checked)), 1), else_=0) == 1]

    def may_start_after(self, value: Any) -> bool:
        """Say whether the row with this first value of its key can be among what the filter selects."""
        return self.upper is None or _BEFORE[self.upper.operator](value, self.upper.value)


def searches(
    restrictions: Sequence[Restriction], order: Column[Any], sought: Sequence[Column[Any]]
) -> tuple[Search, ...]:
    """Return the ways to search for a filter: at least one, the most promising first.

    Args:
        restrictions: The filter.
        order: The first column of the list's order.
        sought: As `Listing` has it.
    """
    # An empty text names nothing, and many rows may have it.
    named = [found for found in restrictions if found.operator == "=" and found.value != ""]
    leading = [found for column in sought for found in named if found.column is column]
    in_order = [found for found in restrictions if found.column is order and found.operator != "!="]
    uppers = [_bound(found, "<=") for found in in_order if not found.operator.startswith(">")]
    lowers = [_bound(found, ">=") for found in in_order if not found.operator.startswith("<")]
    upper = min(uppers, key=lambda found: (found.value, found.operator != "<"), default=None)
    lower = max(lowers, key=lambda found: (found.value, found.operator == ">"), default=None)
    others = [found for found in restrictions if found not in in_order]
    return tuple(
        Search(
            lead=lead,
            upper=upper,
            lower=lower,
            checked=tuple(found for found in others if found is not lead),
        )
        for lead in (leading or (None,))
    )


def _bound(found: Restriction, bound: str) -> Restriction:
    return Restriction(found.column, bound, found.value) if found.operator == "=" else found
