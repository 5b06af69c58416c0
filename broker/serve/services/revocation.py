"""RevocationService."""

from functools import partial

from credbroker.v1 import revocation_service_pb2 as pb
from credbroker.v1.revocation_service_pb2_grpc import (
    RevocationServiceServicer,
    add_RevocationServiceServicer_to_server,
)

from broker.serve.context import current_call
from broker.serve.convert import operators, resources
from broker.serve.convert.pages import read_page
from broker.serve.convert.times import time
from broker.serve.services.service import Service
from broker.store.selections import Extent
from broker.takeback import Takeback


class RevocationServicer(RevocationServiceServicer):
    """Taking back what is out, for admins; auditors may list."""

    def __init__(self, takeback: Takeback) -> None:
        self._takeback = takeback

    async def RevokeIssuances(self, request: pb.RevokeIssuancesRequest, context: object) -> pb.RevokeIssuancesResponse:
        """Take back what an admin selects, or count it."""
        wanted, reason = operators.selection(request)
        if request.validate_only:
            return _counted(await self._takeback.count(current_call(), wanted))
        done = await self._takeback.revoke(current_call(), wanted, reason)
        reply = _counted(done.extent)
        reply.id = done.id
        reply.revoked_issuances = done.matching
        reply.sibling_issuances = done.siblings
        reply.confirmed_issuances = done.matching + done.siblings - done.pending
        reply.pending_issuances = done.pending
        return reply

    async def ListRevocations(self, request: pb.ListRevocationsRequest, context: object) -> pb.ListRevocationsResponse:
        """List what Vault has not confirmed to be gone yet."""
        page = await self._takeback.pending(current_call(), read_page(request.page_size, request.page_token))
        return pb.ListRevocationsResponse(
            revocations=[resources.revocation(revocation) for revocation in page.items],
            next_page_token=page.next_token,
        )


def _counted(extent: Extent) -> pb.RevokeIssuancesResponse:
    return pb.RevokeIssuancesResponse(
        revoked_issuances=extent.matching,
        sibling_issuances=extent.siblings,
        expiring_issuances=extent.expiring,
        last_expire_time=time(extent.last_expires_at),
        earlier_issuances=extent.earlier,
    )


def service(takeback: Takeback) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["RevocationService"],
        partial(add_RevocationServiceServicer_to_server, RevocationServicer(takeback)),
    )
