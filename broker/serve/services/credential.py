"""CredentialService."""

from functools import partial

from credbroker.v1 import credential_service_pb2 as pb
from credbroker.v1.credential_service_pb2_grpc import (
    CredentialServiceServicer,
    add_CredentialServiceServicer_to_server,
)

from broker import config
from broker.holding import Holdings
from broker.ids import parse_id
from broker.issue import Issuer
from broker.serve.context import current_call
from broker.serve.convert import agents, resources
from broker.serve.services.service import Service


class CredentialServicer(CredentialServiceServicer):
    """Credentials for the tasks of agents.

    Args:
        bounds: Default and maximum of a new task's timeout.
        vault: What agents are told of where their tokens work.
    """

    def __init__(self, issuer: Issuer, holdings: Holdings, bounds: config.Tasks, vault: config.Vault) -> None:
        self._issuer = issuer
        self._holdings = holdings
        self._bounds = bounds
        self._vault_address = vault.public_address or vault.address
        self._vault_namespace = vault.namespace

    async def IssueCredential(self, request: pb.IssueCredentialRequest, context: object) -> pb.IssueCredentialResponse:
        """Mint one credential."""
        issued = await self._issuer.issue(current_call(), agents.issue_request(request, self._bounds))
        return pb.IssueCredentialResponse(
            credential=resources.credential(issued, self._vault_address, self._vault_namespace),
            task=resources.task(issued.task),
        )

    async def RenewCredential(self, request: pb.RenewCredentialRequest, context: object) -> pb.RenewCredentialResponse:
        """Prolong a credential."""
        wanted = agents.renewal(request)
        issuance = await self._holdings.renew(current_call(), wanted.issuance_id, wanted.ttl)
        return pb.RenewCredentialResponse(issuance=resources.issuance(issuance))

    async def RevokeCredential(
        self, request: pb.RevokeCredentialRequest, context: object
    ) -> pb.RevokeCredentialResponse:
        """Take a credential back."""
        issuance = await self._holdings.revoke(current_call(), parse_id(request.issuance_id, "issuance_id"))
        return pb.RevokeCredentialResponse(issuance=resources.issuance(issuance))


def service(issuer: Issuer, holdings: Holdings, bounds: config.Tasks, vault: config.Vault) -> Service:
    """Return the service."""
    servicer = CredentialServicer(issuer, holdings, bounds, vault)
    return Service(
        pb.DESCRIPTOR.services_by_name["CredentialService"],
        partial(add_CredentialServiceServicer_to_server, servicer),
    )
