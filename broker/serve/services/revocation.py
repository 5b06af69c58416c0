"""RevocationService."""

from functools import partial

from credbroker.v1 import revocation_service_pb2 as pb
from credbroker.v1.revocation_service_pb2_grpc import (
    RevocationServiceServicer,
    add_RevocationServiceServicer_to_server,
)

from broker.serve.context import current_call
from broker.serve.convert import resources
from broker.serve.convert.pages import read_page
from broker.serve.services.service import Service
from broker.takeback import Takeback


class RevocationServicer(RevocationServiceServicer):
    """Taking back what is out, for admins; auditors may list."""

    def __init__(self, takeback: Takeback) -> None:
        self._takeback = takeback

    async def ListRevocations(self, request: pb.ListRevocationsRequest, context: object) -> pb.ListRevocationsResponse:
        """List what Vault has not confirmed to be gone yet."""
        page = await self._takeback.pending(current_call(), read_page(request.page_size, request.page_token))
        return pb.ListRevocationsResponse(
            revocations=[resources.revocation(revocation) for revocation in page.items],
            next_page_token=page.next_token,
        )


def service(takeback: Takeback) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["RevocationService"],
        partial(add_RevocationServiceServicer_to_server, RevocationServicer(takeback)),
    )
