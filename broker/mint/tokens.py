"""Vault tokens: what is asked for, and whether that is what was made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from broker.errors import MintFailed
from broker.mint.replies import printable_text, section, text, whole_seconds
from broker.model import JsonObject, JsonValue
from broker.secret import Secret


def seconds_of(ttl: timedelta) -> int:
    """Return a time to live in whole seconds, never more than it is.

    Raises:
        MintFailed: when it is less than one second, which Vault would read as
            its own default.
    """
    seconds = ttl // timedelta(seconds=1)
    if seconds < 1:
        raise MintFailed("less than one second to live", message="less than one second of time to live is left")
    return seconds


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token to be created, with exactly the policies named here.

    Attributes:
        type: Batch tokens are never written to Vault's storage and have no accessor.
        policies: Names of its policies.
        ttl: Whole seconds to live.
        max_ttl: Whole seconds that renewals can reach; for service tokens.
        renewable: Whether it can be prolonged.
        display_name: What Vault's audit log calls it.
        meta: What Vault's audit log tells about it.
    """

    type: Literal["service", "batch"]
    policies: tuple[str, ...]
    ttl: int
    max_ttl: int | None
    renewable: bool
    display_name: str
    meta: Mapping[str, str] = field(default_factory=dict)

    def body(self, mark: Mapping[str, str]) -> JsonObject:
        """Return the request as Vault reads it, with further metadata."""
        body: dict[str, JsonValue] = {
            "type": self.type,
            "policies": list(self.policies),
            "ttl": f"{self.ttl}s",
            "renewable": self.renewable,
            "no_default_policy": True,
            "display_name": self.display_name,
            "meta": {**self.meta, **mark},
        }
        if self.max_ttl is not None:
            body["explicit_max_ttl"] = f"{self.max_ttl}s"
        return body


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token that Vault created; batch tokens have no accessor."""

    token: Secret[str]
    accessor: str | None
    expires_at: datetime
    renewable: bool


def read_token(reply: Mapping[str, JsonValue], before: datetime) -> MadeToken | None:
    """Return the token in a reply; None when there is none, or one without an end.

    Args:
        reply: Vault's reply.
        before: When the request was sent, from which its time to live counts.
    """
    auth = section(reply, "auth")
    token, seconds = printable_text(auth, "client_token"), whole_seconds(auth, "lease_duration")
    if token is None or seconds is None:
        return None
    return MadeToken(
        token=Secret(token),
        accessor=text(auth, "accessor"),
        expires_at=before + timedelta(seconds=seconds),
        renewable=auth.get("renewable") is True,
    )


def as_asked(auth: Mapping[str, JsonValue], request: TokenRequest, *, orphan: bool) -> bool:
    """Return whether Vault made the token that was asked for: no other policies, type, parent or time to live."""
    policies, seconds = auth.get("policies"), whole_seconds(auth, "lease_duration")
    return (
        isinstance(policies, list)
        and sorted(map(str, policies)) == sorted(request.policies)
        and auth.get("token_type") == request.type
        and auth.get("orphan") is orphan
        and (request.type == "batch" or text(auth, "accessor") is not None)
        and (request.renewable or auth.get("renewable") is False)
        and seconds is not None
        and seconds <= request.ttl
    )
