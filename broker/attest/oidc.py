"""OpenID Connect ID tokens and JWT access tokens, Kubernetes service-account tokens among them."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field

from broker.attest.algorithms import AlgorithmName
from broker.attest.bearer import TokenAttestor
from broker.attest.claims import check_required, text_claim
from broker.attest.key_set import KeyProfile
from broker.attest.key_source import open_keys
from broker.attest.kind import Kind, Route
from broker.attest.settings import ClaimValue, KeySettings, TokenSettings, check_https
from broker.attest.token import UnverifiedToken, VerifiedClaims
from broker.clock import Clock
from broker.config import HttpsUrl
from broker.errors import EvidenceInvalid
from broker.model import EvidenceKind, Identity, Proof

MAX_URI_CHARS: Final = 2048

# How far the clocks of two replicas may be apart before a proof that one of
# them has forgotten could be accepted by the other.
_CLOCK_SKEW: Final = timedelta(hours=2)

# RFC 8725, section 3.11: an issuer signs other things as well, logout tokens
# for example. RFC 9068 for access tokens; absent is what many issuers do.
_TYPES: Final = frozenset({None, "jwt", "application/jwt", "at+jwt", "application/at+jwt"})


def _https(url: str) -> str:
    check_https(url)
    return url


class OidcSettings(TokenSettings):
    """One OIDC issuer.

    Attributes:
        issuer: Its URL, compared exactly with ``iss``.
        jwks: Its keys.
        algorithms: Which it may sign with.
        one_time: Whether each token is accepted once; it must have a ``jti``.
        required_claims: Claims a token must have, besides; a list means any of
            its values.
    """

    kind: Literal["oidc"]
    issuer: Annotated[HttpsUrl, AfterValidator(_https)]
    jwks: KeySettings
    algorithms: Annotated[tuple[AlgorithmName, ...], Field(min_length=1, strict=False)] = ("ES256", "RS256", "EdDSA")
    one_time: bool = False
    required_claims: dict[str, ClaimValue | list[ClaimValue]] = {}


class OidcAttestor(TokenAttestor):
    """Verifies tokens of one OIDC issuer."""

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        keys = open_keys(settings.jwks, KeyProfile(use="sig"), clock)
        super().__init__(settings, settings.algorithms, keys, Route(EvidenceKind.OIDC, settings.issuer))
        self._settings = settings

    def _check_header(self, token: UnverifiedToken) -> None:
        if token.jws.type not in _TYPES:
            raise EvidenceInvalid(f"the token's typ is that of another kind of token, {str(token.jws.type)[:40]!a}")

    def _identify(self, claims: VerifiedClaims, digest: bytes, expires_at: datetime) -> Identity:
        if claims.values.get("iss") != self._settings.issuer:
            raise EvidenceInvalid(f"the token's iss is not {self._settings.issuer}")
        subject = text_claim(claims, "sub")
        uri = f"{self._settings.issuer}#{quote(subject, safe='/:@')}"
        if len(uri) > MAX_URI_CHARS:
            raise EvidenceInvalid(f"the identity's URI would be longer than {MAX_URI_CHARS} characters")
        check_required(claims, self._settings.required_claims)
        return Identity(
            uri=uri,
            kind=EvidenceKind.OIDC,
            issuer=self._settings.issuer,
            subject=subject,
            claims=claims.values,
            evidence_digest=digest.hex(),
            expires_at=expires_at,
            proof=self._proof(claims, expires_at) if self._settings.one_time else None,
        )

    def _proof(self, claims: VerifiedClaims, expires_at: datetime) -> Proof:
        # Neither part can hold NUL, so the two cannot be split in another way.
        text = f"{self._settings.issuer}\0{text_claim(claims, 'jti')}"
        return Proof(sha256(text.encode()).hexdigest(), expires_at + self._settings.leeway + _CLOCK_SKEW)


KIND = Kind(OidcSettings, OidcAttestor)
