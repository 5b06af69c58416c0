"""Scope documents: their shape, and reading them.

A document says what is wanted; `broker.authorize` compiles what decides from
it, and `broker.mint` knows what each credential kind's mapping means. The
mappings are given by the caller so that a new credential kind needs no change
here.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from broker.errors import FieldViolation, ScopeDocumentInvalid

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

    spiffe_id: Annotated[str | None, Field(alias="spiffeId", max_length=2048)] = None
    issuer: Annotated[str | None, Field(max_length=2048)] = None
    subject: Annotated[str | None, Field(max_length=2048)] = None
    claims: dict[str, str | bool | int | list[str | bool | int]] = {}

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


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses what plain YAML loading would silently accept: duplicate keys, aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"key {key!r} must be text")
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> object:
    """Read one YAML document, refusing duplicate keys, aliases and custom tags.

    Raises:
        yaml.YAMLError: when it cannot be read, with the place in its text.
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader


def violations_of(error: ValidationError, prefix: str = "") -> tuple[FieldViolation, ...]:
    """Return what a pydantic validation found, as paths and what was expected."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = prefix
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        found.append(FieldViolation(path, item["msg"].removeprefix("Value error, ")))
    return tuple(found)


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
        raise _invalid(FieldViolation("", f"must be at most {MAX_DOCUMENT_BYTES} bytes"))
    try:
        raw = load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(FieldViolation("", f"is not readable YAML: {error}")) from None
    violations: list[FieldViolation] = []
    mapping = _parse_mapping(raw, mappings, violations)
    if mapping is not None and isinstance(raw, dict) and isinstance(raw["spec"], dict):
        raw = {**raw, "spec": {**raw["spec"], "credential": mapping}}
    try:
        document = ScopeDocument.model_validate(raw)
    except ValidationError as error:
        found = violations_of(error)
        if violations:
            found = tuple(item for item in found if not item.field.startswith("spec.credential"))
        raise _invalid(*violations, *found) from None
    if violations:
        raise _invalid(*violations)
    return document


def _parse_mapping(
    raw: object, mappings: Mapping[str, type[CredentialMapping]], violations: list[FieldViolation]
) -> CredentialMapping | None:
    spec = raw.get("spec") if isinstance(raw, dict) else None
    credential = spec.get("credential") if isinstance(spec, dict) else None
    if not isinstance(credential, dict):
        return None
    model = mappings.get(str(credential.get("kind")))
    if model is None:
        violations.append(FieldViolation("spec.credential.kind", f"must be one of {', '.join(sorted(mappings))}"))
        return None
    try:
        return model.model_validate(credential)
    except ValidationError as error:
        violations.extend(violations_of(error, "spec.credential"))
        return None


def _invalid(*violations: FieldViolation) -> ScopeDocumentInvalid:
    first = violations[0]
    where = first.field or "the document"
    return ScopeDocumentInvalid(
        f"{where}: {first.description}",
        message=f"the scope document is not valid: {where}: {first.description}",
        violations=violations,
    )
