"""What attestors of signed tokens share: the order in which a token is verified."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime

from broker.attest.claims import check_claims, check_not_expired
from broker.attest.evidence import Evidence
from broker.attest.key_source import KeySource
from broker.attest.kind import Route, Unverified
from broker.attest.reading import digest_evidence, read_evidence
from broker.attest.settings import TokenSettings
from broker.attest.token import UnverifiedToken, VerifiedClaims, verify_token
from broker.errors import EvidenceInvalid
from broker.model import Identity


class TokenAttestor(ABC):
    """Verifies one issuer's tokens.

    Args:
        settings: What a token must be like.
        algorithms: Which may have signed it.
        keys: The issuer's keys.
        route: Whose tokens these are.
    """

    def __init__(self, settings: TokenSettings, algorithms: Collection[str], keys: KeySource, route: Route) -> None:
        self.name = settings.name
        self.route = route
        self._rules = settings
        self._algorithms = frozenset(algorithms)
        self._keys = keys

    @property
    def generation(self) -> int:
        """See `broker.attest.kind.RoutedAttestor`."""
        return self._keys.generation

    async def attest(self, evidence: Evidence, now: datetime) -> Identity:
        """See `broker.attest.evidence.Attestor`."""
        return await self.verify(read_evidence(evidence, digest_evidence(evidence)), now)

    async def verify(self, unverified: Unverified, now: datetime) -> Identity:
        """See `broker.attest.kind.RoutedAttestor`."""
        if not isinstance(unverified, UnverifiedToken):
            raise EvidenceInvalid(f"attestor {self.name} verifies tokens, not certificates")
        # 1. It is the kind of token that says who its bearer is.
        self._check_header(unverified)
        # 2. The issuer's key, and an algorithm that is allowed and the key's.
        key = await self._keys.select(unverified.jws.key_id)
        claims = verify_token(unverified, key, self._algorithms)
        # 3. What all tokens have in common.
        expires_at = check_claims(claims, self._rules, now)
        # 4. What this kind asks for.
        identity = self._identify(claims, unverified.digest, expires_at)
        # 5. Last, so that "expired" means that nothing else is wrong.
        check_not_expired(expires_at, self._rules, now)
        return identity

    async def check(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""
        await self._keys.check()

    def reload(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""
        self._keys.reload()

    async def close(self) -> None:
        """See `broker.attest.kind.RoutedAttestor`."""
        await self._keys.close()

    @abstractmethod
    def _check_header(self, token: UnverifiedToken) -> None:
        """Refuse tokens of another kind.

        Raises:
            EvidenceInvalid: when it is one.
        """

    @abstractmethod
    def _identify(self, claims: VerifiedClaims, digest: bytes, expires_at: datetime) -> Identity:
        """Return the identity that verified claims are about.

        Raises:
            EvidenceInvalid: when they do not say what this kind asks for.
        """
