"""Taking back what is out, as admins ask for it, and what of that Vault has yet to confirm."""

from broker.audit import Call
from broker.model import Page, Revocation
from broker.store import Store, unconfirmed
from broker.store.paging import PageOf


class Takeback:
    """What operators do with revocations."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pending(self, call: Call, page: Page) -> PageOf[Revocation]:
        """Return a page of what Vault has not confirmed to be gone yet, the longest waiting first."""
        return await self._store.read(lambda conn: unconfirmed.page(conn, page))
