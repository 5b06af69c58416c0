"""Credentials that a Vault engine makes together with a lease: databases, clouds, message brokers.

For each one a holder is created first, a service child of the task's anchor,
and the engine is read with it: revoking the holder takes the lease with it.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from broker.document import CredentialMapping
from broker.errors import FieldViolation, MintFailed, ParametersInvalid, VaultUnavailable
from broker.mint.children import child_request, renew_child
from broker.mint.kind import Holder, Minted, Order, PolicyRule
from broker.mint.paths import SEGMENT_RULE, check_template, placeholder, safe_segment
from broker.mint.replies import section, text, whole_seconds
from broker.mint.tokens import seconds_of
from broker.mint.vault import VaultClient
from broker.model import Anchor, Issuance, JsonObject, JsonValue, Revocability
from broker.secret import Secret

_BRACES = re.compile(r"[{}]")


def _check_value(value: str) -> str:
    if placeholder(value) is None and _BRACES.search(value):
        raise ValueError("must be a text without braces, or {parameter} and nothing else")
    return value


class LeasedMapping(CredentialMapping):
    """A secret with a lease.

    Attributes:
        path: Where the engine is read, such as ``database/creds/{role}``;
            ``{parameter}`` stands for one whole segment.
        method: ``GET`` or ``POST``, as the engine wants it.
        request: What is posted: texts, or ``{parameter}`` for the value of a
            parameter as it is.
        renewable: Whether the agent can prolong it.
    """

    kind: Literal["leased"]
    path: Annotated[str, Field(max_length=512), AfterValidator(check_template)]
    method: Literal["GET", "POST"] = "GET"
    request: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")],
            Annotated[str, Field(max_length=1024), AfterValidator(_check_value)],
        ],
        Field(max_length=32),
    ] = {}
    renewable: bool = True

    @model_validator(mode="after")
    def _posts_what_it_requests(self) -> "LeasedMapping":
        if self.request and self.method != "POST":
            raise ValueError("request goes with method POST")
        return self


class Leased:
    """Mints secrets with leases."""

    mapping = LeasedMapping

    def policy(self, mapping: CredentialMapping) -> tuple[PolicyRule, ...]:
        """Return the right to read the engine at the mapping's path."""
        own = _own(mapping)
        path = "/".join("+" if placeholder(segment) else segment for segment in own.path.split("/"))
        return (PolicyRule(path, ("read",) if own.method == "GET" else ("create", "update")),)

    def revocability(self, mapping: CredentialMapping) -> Revocability:
        """Say how leased secrets can be taken back."""
        return Revocability.INDIVIDUAL

    def parameters(self, mapping: CredentialMapping) -> Mapping[str, bool]:
        """Return the parameters that the mapping uses, and whether each stands in the path."""
        own = _own(mapping)
        posted = {name: False for name in map(placeholder, own.request.values()) if name is not None}
        return posted | {name: True for name in map(placeholder, own.path.split("/")) if name is not None}

    def check(self, mapping: CredentialMapping, parameters: JsonObject) -> None:
        """Check that each parameter is there, and that those in the path are single segments.

        Raises:
            ParametersInvalid: when it is not so.
        """
        for name, in_path in self.parameters(mapping).items():
            if name not in parameters:
                raise _invalid(name, "is needed by this scope")
            value = parameters[name]
            try:
                if in_path:
                    safe_segment(value if isinstance(value, str) else "")
            except ValueError:
                raise _invalid(name, SEGMENT_RULE) from None

    async def prepare(self, vault: VaultClient, anchor: Anchor, order: Order) -> Holder | None:
        """Create the holder.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused.
            ParametersInvalid: when a parameter cannot be put where the mapping
                wants it.
        """
        own = _own(order.mapping)
        self.check(own, order.parameters)
        request = child_request(order, individual=True, renewable=own.renewable)
        made = await vault.create_token(request, parent=anchor.token)
        if made.accessor is None:
            raise VaultUnavailable("Vault made a holder without an accessor")
        return Holder(accessor=made.accessor, token=made.token, expires_at=min(made.expires_at, anchor.expires_at))

    async def mint(self, vault: VaultClient, anchor: Anchor, holder: Holder | None, order: Order) -> Minted:
        """Read the engine with the holder's token.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused, or made something without a lease;
                the holder is gone.
            ParametersInvalid: when a parameter cannot be put where the mapping
                wants it.
        """
        if holder is None:
            raise RuntimeError("a leased secret is minted with its holder")
        own = _own(order.mapping)
        self.check(own, order.parameters)
        path = tuple(str(_value(segment, order.parameters)) for segment in own.path.split("/"))
        body = {key: _value(value, order.parameters) for key, value in own.request.items()}
        before = vault.now()
        try:
            reply = await vault.call(own.method, path, body if own.method == "POST" else None, token=holder.token)
            return _minted(reply, before, anchor, holder, order)
        except MintFailed as failure:
            if not await vault.discard(holder.accessor, None):
                raise VaultUnavailable(f"{failure.detail}; the holder may be alive") from None
            raise

    async def renew(self, vault: VaultClient, issuance: Issuance, ttl: timedelta) -> datetime:
        """Prolong holder and lease and return when the secret now expires.

        Raises:
            VaultUnavailable: when Vault did not answer.
            NotRenewable: when Vault refused to prolong it.
            IssuanceEnded: when Vault no longer knows it.
        """
        return await renew_child(vault, issuance, ttl)


def _value(template: str, parameters: JsonObject) -> JsonValue:
    name = placeholder(template)
    return template if name is None else parameters[name]


def _invalid(name: str, rule: str) -> ParametersInvalid:
    return ParametersInvalid(f"parameter {name} {rule}", violations=(FieldViolation(f"parameters.{name}", rule),))


def _minted(reply: dict[str, JsonValue], before: datetime, anchor: Anchor, holder: Holder, order: Order) -> Minted:
    lease_id, seconds, data = text(reply, "lease_id"), whole_seconds(reply, "lease_duration"), section(reply, "data")
    if lease_id is None or seconds is None or not data:
        raise MintFailed("the engine answered without a lease: this path cannot be used with kind: leased")
    expires_at = min(before + timedelta(seconds=seconds), holder.expires_at, anchor.expires_at)
    held_since = holder.expires_at - timedelta(seconds=seconds_of(order.ttl))
    renewals_end = min(held_since + timedelta(seconds=seconds_of(order.max_ttl)), anchor.expires_at)
    renewable = _own(order.mapping).renewable and reply.get("renewable") is True and renewals_end > expires_at
    return Minted(
        secret=Secret(data),
        expires_at=expires_at,
        max_expires_at=renewals_end if renewable else expires_at,
        accessor=holder.accessor,
        lease_id=lease_id,
        renewable=renewable,
    )


def _own(mapping: CredentialMapping) -> LeasedMapping:
    if not isinstance(mapping, LeasedMapping):
        raise TypeError(f"{mapping.kind} is not a mapping of this kind")
    return mapping
