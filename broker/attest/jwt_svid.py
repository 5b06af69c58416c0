"""JWT-SVIDs (the JWT-SVID standard of SPIFFE)."""

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from broker.attest.algorithms import SvidAlgorithmName
from broker.attest.bearer import TokenAttestor
from broker.attest.claims import text_claim
from broker.attest.key_set import KeyProfile
from broker.attest.key_source import open_keys
from broker.attest.kind import Kind, Route
from broker.attest.settings import KeySettings, TokenSettings
from broker.attest.spiffe_id import TrustDomain, parse_spiffe_id
from broker.attest.token import UnverifiedToken, VerifiedClaims
from broker.clock import Clock
from broker.errors import EvidenceInvalid
from broker.model import EvidenceKind, Identity

# Section 2: any other header must not be there.
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_TYPES: Final = frozenset({None, "jwt", "jose"})


class JwtSvidSettings(TokenSettings):
    """JWT-SVIDs of one trust domain.

    Attributes:
        trust_domain: Its name, without ``spiffe://``.
        bundle: Its SPIFFE bundle; keys for anything but JWT-SVIDs are ignored.
        algorithms: Which its authority may sign with.
    """

    kind: Literal["jwt_svid"]
    trust_domain: TrustDomain
    bundle: KeySettings
    algorithms: Annotated[tuple[SvidAlgorithmName, ...], Field(min_length=1, strict=False)] = (
        "ES256",
        "ES384",
        "RS256",
    )


class JwtSvidAttestor(TokenAttestor):
    """Verifies JWT-SVIDs of one trust domain.

    ``iss`` is not checked: the standard gives it no meaning, and the bundle
    says who may sign.
    """

    def __init__(self, settings: JwtSvidSettings, clock: Clock) -> None:
        keys = open_keys(settings.bundle, KeyProfile(use="jwt-svid", needs_key_id=True), clock)
        super().__init__(settings, settings.algorithms, keys, Route(EvidenceKind.JWT_SVID, settings.trust_domain))
        self._trust_domain = settings.trust_domain

    def _check_header(self, token: UnverifiedToken) -> None:
        if token.jws.type not in _TYPES:
            raise EvidenceInvalid(f"a JWT-SVID's typ is JWT or JOSE, not {str(token.jws.type)[:40]!a}")
        if not token.jws.header_names <= _HEADERS:
            raise EvidenceInvalid("a JWT-SVID's header has nothing but alg, kid and typ")

    def _identify(self, claims: VerifiedClaims, digest: bytes, expires_at: datetime) -> Identity:
        try:
            spiffe_id = parse_spiffe_id(text_claim(claims, "sub"))
        except ValueError as error:
            raise EvidenceInvalid(f"the token's sub {error}") from None
        if spiffe_id.trust_domain != self._trust_domain:
            raise EvidenceInvalid(f"the token's sub is not of the trust domain {self._trust_domain}")
        return Identity(
            uri=spiffe_id.uri,
            kind=EvidenceKind.JWT_SVID,
            issuer=f"spiffe://{self._trust_domain}",
            subject=spiffe_id.uri,
            claims=claims.values,
            evidence_digest=digest.hex(),
            expires_at=expires_at,
        )


KIND = Kind(JwtSvidSettings, JwtSvidAttestor)
