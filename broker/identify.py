"""From evidence to a caller: attest, consume one-time evidence, add roles."""

from datetime import datetime

from broker.attest import Attestation
from broker.attest.evidence import Evidence
from broker.authorize import RoleRules
from broker.errors import EvidenceReplayed
from broker.model import Caller
from broker.store import Store, proofs


class Identify:
    """Establishes who calls.

    Args:
        attestation: Verifies evidence.
        roles: The configuration's access rules.
        store: Where one-time evidence is consumed, once across all replicas.
    """

    def __init__(self, attestation: Attestation, roles: RoleRules, store: Store) -> None:
        self._attestation = attestation
        self._roles = roles
        self._store = store

    async def __call__(self, evidence: Evidence | None, now: datetime) -> Caller:
        """Return the caller.

        Raises:
            Unauthenticated: when no identity could be established.
            KeysUnavailable: when the issuer's keys cannot be had.
            StoreUnavailable: when one-time evidence cannot be consumed.
        """
        identity = await self._attestation.attest(evidence, now)
        proof = identity.proof
        if proof is not None and not await self._store.write(lambda conn: proofs.consume(conn, proof)):
            raise EvidenceReplayed(f"one-time evidence of {identity.uri} was used before")
        return Caller(identity, self._roles.roles(identity))
