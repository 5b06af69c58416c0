"""Scope documents: their shape, and reading them.

A document says what is wanted; `broker.authorize` compiles what decides from
it, and `broker.mint` knows what each credential kind's mapping means. The
mappings are given by the caller so that a new credential kind needs no change
here.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from broker.errors import FieldViolation, ScopeDocumentInvalid
from broker.reading import load_yaml as load_yaml
from broker.reading import violations_of

API_VERSION = "credbroker.dev/v1"
MAX_DOCUMENT_BYTES = 64 * 1024

_DURATION = re.compile(r"([0-9]{1,6})(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(value: object) -> timedelta:
    """Read a duration such as ``90s``, ``15m`` or ``2h``.

    Raises:
        ValueError: when it is anything else, or zero.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration such as 90s, 15m or 2h")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds == 0:
        raise ValueError("must be longer than zero")
    return timedelta(seconds=seconds)


def _duration(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def _claim_value(value: object) -> object:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str | int) for item in values):
        raise ValueError("must be text, a whole number, true or false, or a list of some of these")
    return value


_ClaimScalar: TypeAlias = str | bool | int
ClaimValue = Annotated[_ClaimScalar | list[_ClaimScalar], BeforeValidator(_claim_value)]
ScopeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Strict(BaseModel):
    """Base of everything read from documents: no unknown keys, no coercion, no change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Metadata(Strict):
    """Name and labels of a document."""

    name: ScopeName
    labels: dict[str, str] = {}


class Who(Strict):
    """One way to be entitled. All that is given must match.

    Attributes:
        spiffe_id: Pattern over the SPIFFE ID, by whole path segments: ``*``
            stands for one segment, a final ``**`` for one or more. The trust
            domain is always literal.
        issuer: OIDC issuer, compared exactly.
        subject: Pattern over the OIDC subject, by whole segments between ``/``.
        claims: Verified claims; a list means any of these values. A claim that
            is a list itself matches when it contains one of them.
    """

    spiffe_id: Annotated[str | None, Field(alias="spiffeId", min_length=1, max_length=2048)] = None
    issuer: Annotated[str | None, Field(min_length=1, max_length=2048)] = None
    subject: Annotated[str | None, Field(min_length=1, max_length=2048)] = None
    claims: dict[str, ClaimValue] = {}

    @model_validator(mode="after")
    def _names_somebody(self) -> "Who":
        if (self.spiffe_id is None) == (self.issuer is None):
            raise ValueError("must name either spiffeId or issuer")
        if self.subject is not None and self.issuer is None:
            raise ValueError("subject goes with issuer")
        if self.issuer is not None and self.subject is None and not self.claims:
            raise ValueError("issuer needs a subject or claims beside it")
        return self


class Ttl(Strict):
    """How long credentials live.

    Attributes:
        default: When the agent asks for nothing else.
        max: The most it can ask for, and the end of all renewals.
    """

    default: Duration
    max: Duration

    @model_validator(mode="after")
    def _ordered(self) -> "Ttl":
        if self.default > self.max:
            raise ValueError("default must not be longer than max")
        return self


class Limits(Strict):
    """How many credentials may be alive, and how often one may be issued.

    Absent means no limit. ``per_agent_per_minute`` counts the last 60 seconds.
    """

    live_per_task: Annotated[int | None, Field(alias="livePerTask", ge=1)] = None
    live_per_agent: Annotated[int | None, Field(alias="livePerAgent", ge=1)] = None
    live_per_scope: Annotated[int | None, Field(alias="livePerScope", ge=1)] = None
    per_agent_per_minute: Annotated[int | None, Field(alias="perAgentPerMinute", ge=1)] = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        limits = (self.live_per_task, self.live_per_agent, self.live_per_scope, self.per_agent_per_minute)
        return limits != (None, None, None, None)


class CredentialMapping(Strict):
    """What is minted; each credential kind adds its own fields."""

    kind: str


class ScopeSpec(Strict):
    """What a scope says."""

    description: Annotated[str, Field(max_length=500)] = ""
    who: Annotated[tuple[Who, ...], Field(min_length=1, max_length=100, strict=False)]
    when: Annotated[str | None, Field(min_length=1, max_length=4096)] = None
    parameters: dict[str, JsonValue] = {"type": "object", "additionalProperties": False}
    credential: CredentialMapping
    ttl: Ttl
    limits: Limits = Limits()


class ScopeDocument(Strict):
    """A whole scope document."""

    api_version: Annotated[Literal["credbroker.dev/v1"], Field(alias="apiVersion")]
    kind: Literal["Scope"]
    metadata: Metadata
    spec: ScopeSpec


def parse_document(text: str, mappings: Mapping[str, type[CredentialMapping]]) -> ScopeDocument:
    """Read a scope document.

    Args:
        text: The YAML text.
        mappings: The mapping model of each credential kind.

    Raises:
        ScopeDocumentInvalid: with every wrong field, its path in the document
            and what was expected there.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        raise invalid_document(FieldViolation("", f"must be at most {MAX_DOCUMENT_BYTES} bytes"))
    try:
        raw = load_yaml(text)
    except yaml.YAMLError as error:
        raise invalid_document(FieldViolation("", f"is not readable YAML: {error}")) from None
    violations: list[FieldViolation] = []
    try:
        document = ScopeDocument.model_validate(_with_mapping(raw, mappings, violations), by_alias=True, by_name=False)
    except ValidationError as error:
        found = violations_of(error, source=raw)
        if violations:  # the mapping has been judged by its own model
            found = tuple(item for item in found if not re.match(r"spec\.credential(\.|$)", item.field))
        raise invalid_document(*violations, *found) from None
    if violations:
        raise invalid_document(*violations)
    return document


def _with_mapping(
    raw: object, mappings: Mapping[str, type[CredentialMapping]], violations: list[FieldViolation]
) -> object:
    """Return the document with its credential mapping read by the model of its kind."""
    spec = raw.get("spec") if isinstance(raw, dict) else None
    credential = spec.get("credential") if isinstance(spec, dict) else None
    if not isinstance(raw, dict) or not isinstance(spec, dict) or not isinstance(credential, dict):
        return raw
    model = mappings.get(str(credential.get("kind")))
    if model is None:
        violations.append(FieldViolation("spec.credential.kind", f"must be one of {', '.join(sorted(mappings))}"))
        return raw
    try:
        mapping = model.model_validate(credential, by_alias=True, by_name=False)
    except ValidationError as error:
        violations.extend(violations_of(error, "spec.credential", credential))
        return raw
    return {**raw, "spec": {**spec, "credential": mapping}}


def invalid_document(first: FieldViolation, *more: FieldViolation) -> ScopeDocumentInvalid:
    """Return the error for a wrong document: every violation, the first one in words."""
    where = first.field or "the document"
    return ScopeDocumentInvalid(
        f"{where}: {first.description}",
        message=f"the scope document is not valid: {where}: {first.description}",
        violations=(first, *more),
    )
