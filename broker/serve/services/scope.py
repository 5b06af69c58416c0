"""ScopeService."""

from functools import partial

from credbroker.v1 import scope_service_pb2 as pb
from credbroker.v1.scope_service_pb2_grpc import ScopeServiceServicer, add_ScopeServiceServicer_to_server

from broker.scopes import Scopes
from broker.serve.context import current_call
from broker.serve.convert import operators, resources
from broker.serve.convert.pages import read_page
from broker.serve.services.service import Service


class ScopeServicer(ScopeServiceServicer):
    """Scopes, for admins and auditors."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes

    async def CreateScope(self, request: pb.CreateScopeRequest, context: object) -> pb.CreateScopeResponse:
        """Store a new scope."""
        scope = await self._scopes.create(current_call(), operators.new_scope(request), request.validate_only)
        return pb.CreateScopeResponse(scope=resources.scope(scope))

    async def GetScope(self, request: pb.GetScopeRequest, context: object) -> pb.GetScopeResponse:
        """Read one version."""
        name, version = operators.scope_version(request)
        return pb.GetScopeResponse(scope=resources.scope(await self._scopes.get(current_call(), name, version)))

    async def ListScopes(self, request: pb.ListScopesRequest, context: object) -> pb.ListScopesResponse:
        """List current versions, by name."""
        page = await self._scopes.list(current_call(), read_page(request.page_size, request.page_token))
        return pb.ListScopesResponse(
            scopes=[resources.scope(scope) for scope in page.items], next_page_token=page.next_token
        )

    async def UpdateScope(self, request: pb.UpdateScopeRequest, context: object) -> pb.UpdateScopeResponse:
        """Store a new version."""
        change = operators.changed_scope(request)
        scope = await self._scopes.update(current_call(), change.document, change.etag, request.validate_only)
        return pb.UpdateScopeResponse(scope=resources.scope(scope))

    async def DeleteScope(self, request: pb.DeleteScopeRequest, context: object) -> pb.DeleteScopeResponse:
        """Delete a scope."""
        name, etag = operators.deleted_scope(request)
        await self._scopes.delete(current_call(), name, etag)
        return pb.DeleteScopeResponse()

    async def ExplainAccess(self, request: pb.ExplainAccessRequest, context: object) -> pb.ExplainAccessResponse:
        """Say whether an agent would get a scope, and why."""
        return resources.explanation(await self._scopes.explain(current_call(), operators.question(request)))


def service(scopes: Scopes) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["ScopeService"],
        partial(add_ScopeServiceServicer_to_server, ScopeServicer(scopes)),
    )
