"""StatusService."""

from functools import partial

from credbroker.v1 import status_service_pb2 as pb
from credbroker.v1.status_service_pb2_grpc import StatusServiceServicer, add_StatusServiceServicer_to_server

from broker.serve.context import current_call
from broker.serve.convert.status import reply
from broker.serve.services.service import Service
from broker.status import Status


class StatusServicer(StatusServiceServicer):
    """How the broker is, for admins and auditors."""

    def __init__(self, status: Status) -> None:
        self._status = status

    async def GetStatus(self, request: pb.GetStatusRequest, context: object) -> pb.GetStatusResponse:
        """Say how the broker is and what needs a person."""
        return reply(await self._status.get(current_call()))


def service(status: Status) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["StatusService"],
        partial(add_StatusServiceServicer_to_server, StatusServicer(status)),
    )
