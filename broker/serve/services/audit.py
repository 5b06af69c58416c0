"""AuditService."""

from functools import partial

from credbroker.v1 import audit_service_pb2 as pb
from credbroker.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server

from broker.ids import parse_id
from broker.query import Query
from broker.serve.context import current_call
from broker.serve.convert import resources
from broker.serve.convert.pages import read_page
from broker.serve.services.service import Service


class AuditServicer(AuditServiceServicer):
    """The evidence, for auditors."""

    def __init__(self, query: Query) -> None:
        self._query = query

    async def ListIssuances(self, request: pb.ListIssuancesRequest, context: object) -> pb.ListIssuancesResponse:
        """List issuances, newest first."""
        page = await self._query.issuances(
            current_call(), read_page(request.page_size, request.page_token, request.filter)
        )
        return pb.ListIssuancesResponse(
            issuances=[resources.issuance(issuance) for issuance in page.items], next_page_token=page.next_token
        )

    async def GetIssuance(self, request: pb.GetIssuanceRequest, context: object) -> pb.GetIssuanceResponse:
        """Read one issuance with its whole life."""
        issuance, events = await self._query.issuance(current_call(), parse_id(request.id, "id"))
        return pb.GetIssuanceResponse(
            issuance=resources.issuance(issuance), events=[resources.audit_event(event) for event in events]
        )

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: object) -> pb.ListAuditEventsResponse:
        """List audit events, newest first."""
        page = await self._query.events(
            current_call(), read_page(request.page_size, request.page_token, request.filter)
        )
        return pb.ListAuditEventsResponse(
            events=[resources.audit_event(event) for event in page.items], next_page_token=page.next_token
        )


def service(query: Query) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["AuditService"],
        partial(add_AuditServiceServicer_to_server, AuditServicer(query)),
    )
