"""LockService."""

from functools import partial

from credbroker.v1 import lock_service_pb2 as pb
from credbroker.v1.lock_service_pb2_grpc import LockServiceServicer, add_LockServiceServicer_to_server

from broker.ids import parse_id
from broker.locks import Locks
from broker.serve.context import current_call
from broker.serve.convert import operators, resources
from broker.serve.convert.pages import read_page
from broker.serve.services.service import Service


class LockServicer(LockServiceServicer):
    """Locks, for admins; auditors may list."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks

    async def CreateLock(self, request: pb.CreateLockRequest, context: object) -> pb.CreateLockResponse:
        """Lock an agent, agents, a task or a scope."""
        wanted = operators.new_lock(request)
        made = await self._locks.create(current_call(), wanted.kind, wanted.target, wanted.reason, wanted.ttl)
        return pb.CreateLockResponse(
            lock=resources.lock(made.lock),
            ended_tasks=made.ended_tasks,
            revoked_issuances=made.revoked_issuances,
            confirmed_issuances=made.revoked_issuances - made.pending_issuances,
            pending_issuances=made.pending_issuances,
        )

    async def ListLocks(self, request: pb.ListLocksRequest, context: object) -> pb.ListLocksResponse:
        """List the locks in force, newest first."""
        page = await self._locks.list(current_call(), read_page(request.page_size, request.page_token))
        return pb.ListLocksResponse(
            locks=[resources.lock(lock) for lock in page.items], next_page_token=page.next_token
        )

    async def DeleteLock(self, request: pb.DeleteLockRequest, context: object) -> pb.DeleteLockResponse:
        """Lift a lock."""
        await self._locks.delete(current_call(), parse_id(request.id, "id"))
        return pb.DeleteLockResponse()


def service(locks: Locks) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["LockService"],
        partial(add_LockServiceServicer_to_server, LockServicer(locks)),
    )
