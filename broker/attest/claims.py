"""Checks of verified claims (RFC 7519, section 4.1), and an account of every registered one."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.attest.settings import ClaimValue, TokenSettings
from broker.attest.token import VerifiedClaims
from broker.errors import EvidenceExpired, EvidenceInvalid
from broker.model import JsonValue

# Every claim is one of these, or carried along for scopes and roles to match.
REQUIRED: Final = frozenset({"sub", "aud", "exp"})
CHECKED: Final = frozenset({"iss", "nbf", "iat", "jti"})
REFUSED: Final[Mapping[str, str]] = {
    "cnf": "is bound to a key (RFC 7800), which a bearer does not prove to hold",
    "events": "is a security event (RFC 8417), such as a logout, and says nothing about its bearer",
}
# Their meaning is for the client that logged in, not for whom the token is sent to.
UNCHECKED: Final = frozenset(
    {"acr", "amr", "at_hash", "auth_time", "azp", "c_hash", "client_id", "nonce", "scope", "sid"}
)

MAX_TEXT_CHARS: Final = 1024

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = 253_370_764_800  # the year 9999, as far as datetime reaches


def check_claims(claims: VerifiedClaims, rules: TokenSettings, now: datetime) -> datetime:
    """Check everything that all tokens have in common, but not yet whether they have expired.

    Returns:
        When the token expires.

    Raises:
        EvidenceInvalid: when a claim is missing, malformed or not acceptable.
    """
    # 1. What must be there is, and nothing that makes it another kind of token.
    missing = REQUIRED - claims.values.keys()
    if missing:
        raise EvidenceInvalid(f"the token has no {', '.join(sorted(missing))}")
    refused = REFUSED.keys() & claims.values.keys()
    if refused:
        raise EvidenceInvalid(f"the token {'; it '.join(REFUSED[name] for name in sorted(refused))}")
    # 2. It is meant for the broker.
    _check_audience(claims.values["aud"], rules)
    # 3. It has begun, and does not last longer than it may.
    expires_at = _moment(claims, "exp")
    _check_begun(claims, rules, now)
    _check_lifetime(claims, rules, now, expires_at)
    # 4. An identifier is text, whether or not anything depends on it.
    if "jti" in claims.values:
        text_claim(claims, "jti")
    return expires_at


def check_not_expired(expires_at: datetime, rules: TokenSettings, now: datetime) -> None:
    """Check that a token, which is in order otherwise, has not expired.

    Raises:
        EvidenceExpired: when it has.
    """
    if now >= expires_at + rules.leeway:
        raise EvidenceExpired(f"the token expired at {expires_at.isoformat()}")


def text_claim(claims: VerifiedClaims, name: str) -> str:
    """Return a claim that must be text of a reasonable length.

    Raises:
        EvidenceInvalid: when it is missing or anything else.
    """
    value = claims.values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise EvidenceInvalid(f"the token's {name} is not text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def check_required(claims: VerifiedClaims, required: Mapping[str, ClaimValue | list[ClaimValue]]) -> None:
    """Check claims that the configuration asks for.

    A list in the configuration means any of its values. A claim that is a list
    itself has a value when it contains it. Types count: ``1`` is not ``true``.

    Raises:
        EvidenceInvalid: when a claim has none of the values.
    """
    for name, wanted in required.items():
        actual = claims.values.get(name)
        values = actual if isinstance(actual, list) else [actual]
        choices = wanted if isinstance(wanted, list) else [wanted]
        if not any(_same(value, choice) for value in values for choice in choices):
            raise EvidenceInvalid(f"the token's {name} is none of the values that the configuration requires")


def _same(value: JsonValue, choice: ClaimValue) -> bool:
    return type(value) is type(choice) and value == choice


def _check_audience(audience: JsonValue, rules: TokenSettings) -> None:
    audiences = audience if isinstance(audience, list) else [audience]
    if not audiences or not all(isinstance(item, str) for item in audiences):
        raise EvidenceInvalid("the token's aud is neither text nor a list of texts")
    if rules.single_audience and len(audiences) > 1:
        raise EvidenceInvalid(f"the token has {len(audiences)} audiences, and single_audience is set")
    if set(rules.audiences).isdisjoint(map(str, audiences)):
        raise EvidenceInvalid(f"the token is meant for others, {str(audiences[0])[:100]!a}")


def _check_begun(claims: VerifiedClaims, rules: TokenSettings, now: datetime) -> None:
    for name in ("nbf", "iat"):
        if name in claims.values and _moment(claims, name) > now + rules.leeway:
            raise EvidenceInvalid(f"the token's {name} is in the future")


def _check_lifetime(claims: VerifiedClaims, rules: TokenSettings, now: datetime, expires_at: datetime) -> None:
    begins_at = _moment(claims, "iat") if "iat" in claims.values else now
    if expires_at - begins_at > rules.max_lifetime:
        raise EvidenceInvalid(f"the token lives longer than {rules.max_lifetime}")


def _moment(claims: VerifiedClaims, name: str) -> datetime:
    value = claims.values[name]
    # A bool is an int to Python, and is no time to anybody.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LAST_SECOND:
        raise EvidenceInvalid(f"the token's {name} is not a time")
    return _EPOCH + timedelta(seconds=value)
