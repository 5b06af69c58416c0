"""What auditors ask. Each question is recorded before it is answered."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from broker.audit import Call
from broker.audit.catalogue import AUDIT_EVENTS_LISTED, AUDIT_ISSUANCE_READ, AUDIT_ISSUANCES_LISTED
from broker.errors import IssuanceNotFound
from broker.model import AuditEvent, Issuance, JsonValue, Page
from broker.store import Store, events, issuances
from broker.store.paging import PageOf


class Query:
    """The auditors' questions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def issuances(self, call: Call, page: Page) -> PageOf[Issuance]:
        """Return a page of issuances, newest first.

        Raises:
            FilterInvalid: when the filter cannot be understood.
            PageTokenInvalid: when the token belongs to another question.
        """
        found = await self._store.read(lambda conn: issuances.page(conn, page))
        await self._note(call, AUDIT_ISSUANCES_LISTED, _question(page, len(found.items)))
        return found

    async def issuance(self, call: Call, issuance_id: str) -> tuple[Issuance, Sequence[AuditEvent]]:
        """Return one issuance with the events of its life, oldest first.

        Raises:
            IssuanceNotFound: when there is none.
        """
        call.issuance_id = issuance_id

        def read(conn: Connection) -> tuple[Issuance, Sequence[AuditEvent]] | None:
            issuance = issuances.get(conn, issuance_id)
            return None if issuance is None else (issuance, events.of_issuance(conn, issuance))

        found = await self._store.read(read)
        if found is None:
            raise IssuanceNotFound(f"no issuance {issuance_id}")
        # Noted as a fact, not as the subject: the question is no part of the
        # credential's own life.
        call.issuance_id = None
        await self._note(call, AUDIT_ISSUANCE_READ, {"issuance_id": issuance_id})
        return found

    async def events(self, call: Call, page: Page) -> PageOf[AuditEvent]:
        """Return a page of audit events, newest first.

        Raises:
            FilterInvalid: when the filter cannot be understood.
            PageTokenInvalid: when the token belongs to another question.
        """
        found = await self._store.read(lambda conn: events.page(conn, page))
        await self._note(call, AUDIT_EVENTS_LISTED, _question(page, len(found.items)))
        return found

    async def _note(self, call: Call, kind: str, facts: Mapping[str, JsonValue]) -> None:
        event = call.event(kind, attributes=facts)
        await self._store.write(lambda conn: events.append(conn, [event]))


def _question(page: Page, returned: int) -> dict[str, JsonValue]:
    return {"filter": page.filter, "page_size": page.size, "continued": bool(page.token), "returned": returned}
