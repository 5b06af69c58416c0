"""Scope documents: what is accepted, and what is said about the rest."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import pytest
from pydantic import Field

from broker.document import (
    MAX_DOCUMENT_BYTES,
    CredentialMapping,
    Limits,
    ScopeDocument,
    Ttl,
    Who,
    parse_document,
    parse_duration,
)
from broker.errors import FieldViolation, ScopeDocumentInvalid

DOCUMENT = """
apiVersion: credbroker.dev/v1
kind: Scope
metadata:
  name: reports-read
  labels: {team: sales}
spec:
  description: Read the reports.
  who:
    - spiffeId: spiffe://example.org/agents/*
    - issuer: https://issuer.example
      subject: repo/*
      claims: {env: [prod, 3, true], team: x}
  when: task.purpose != ""
  parameters:
    type: object
    properties: {table: {type: string}}
  credential:
    kind: leased
    rolePath: database/creds/reports
  ttl: {default: 90s, max: 2h}
  limits: {livePerTask: 1, livePerAgent: 2, livePerScope: 3, perAgentPerMinute: 4}
"""


class Token(CredentialMapping):
    """A mapping without fields of its own."""


class Leased(CredentialMapping):
    """A mapping with a field that is spelt otherwise in documents."""

    role_path: Annotated[str, Field(alias="rolePath")]


MAPPINGS: Mapping[str, type[CredentialMapping]] = {"leased": Leased, "token": Token}


def parts(**changes: object) -> dict[str, object]:
    spec = {
        "who": [{"spiffeId": "spiffe://example.org/a"}],
        "credential": {"kind": "token"},
        "ttl": {"default": "5m", "max": "15m"},
        **changes,
    }
    return {"apiVersion": "credbroker.dev/v1", "kind": "Scope", "metadata": {"name": "a"}, "spec": spec}


def parse(document: object) -> ScopeDocument:
    return parse_document(document if isinstance(document, str) else json.dumps(document), MAPPINGS)


def violations(document: object) -> list[tuple[str, str]]:
    with pytest.raises(ScopeDocumentInvalid) as caught:
        parse(document)
    error = caught.value
    first = error.violations[0]
    assert error.detail == f"{first.field or 'the document'}: {first.description}"
    assert error.message == f"the scope document is not valid: {error.detail}"
    assert error.__cause__ is None
    return [(item.field, item.description) for item in error.violations]


def test_a_whole_document() -> None:
    document = parse(DOCUMENT)
    assert document.metadata.name == "reports-read"
    assert document.metadata.labels == {"team": "sales"}
    spec = document.spec
    assert spec.description == "Read the reports."
    assert spec.who == (
        Who(spiffe_id="spiffe://example.org/agents/*"),
        Who(issuer="https://issuer.example", subject="repo/*", claims={"env": ["prod", 3, True], "team": "x"}),
    )
    assert spec.when == 'task.purpose != ""'
    assert spec.parameters == {"type": "object", "properties": {"table": {"type": "string"}}}
    assert spec.credential == Leased(kind="leased", role_path="database/creds/reports")
    assert spec.ttl == Ttl(default=timedelta(seconds=90), max=timedelta(hours=2))
    assert spec.limits == Limits(live_per_task=1, live_per_agent=2, live_per_scope=3, per_agent_per_minute=4)


def test_what_may_be_left_out() -> None:
    spec = parse(parts()).spec
    assert (spec.description, spec.when, spec.limits) == ("", None, Limits())
    assert spec.parameters == {"type": "object", "additionalProperties": False}


def test_claim_values_keep_their_types() -> None:
    entry = {"spiffeId": "spiffe://example.org/a", "claims": {"yes": True, "one": 1, "text": "1", "any": [True, 1]}}
    claims = parse(parts(who=[entry])).spec.who[0].claims
    assert repr(claims) == "{'yes': True, 'one': 1, 'text': '1', 'any': [True, 1]}"


WHO = "must name either spiffeId or issuer"
CLAIM = "must be text, a whole number, true or false, or a list of some of these"


@pytest.mark.parametrize(
    ("changes", "field", "description"),
    [
        ({"who": []}, "spec.who", "must not be empty"),
        ({"who": {}}, "spec.who", "must be a list"),
        ({"who": [{}]}, "spec.who[0]", WHO),
        ({"who": [{"spiffeId": "a", "issuer": "b", "subject": "c"}]}, "spec.who[0]", WHO),
        ({"who": [{"spiffeId": "a", "subject": "c"}]}, "spec.who[0]", "subject goes with issuer"),
        ({"who": [{"issuer": "b"}]}, "spec.who[0]", "issuer needs a subject or claims beside it"),
        ({"who": [{"issuer": "", "subject": "a"}]}, "spec.who[0].issuer", "must not be empty"),
        ({"who": [{"issuer": "b", "claims": {"a": 1.5}}]}, "spec.who[0].claims.a", CLAIM),
        ({"who": [{"issuer": "b", "claims": {"a": None}}]}, "spec.who[0].claims.a", CLAIM),
        ({"who": [{"issuer": "b", "claims": {"a": []}}]}, "spec.who[0].claims.a", CLAIM),
        ({"who": [{"issuer": "b", "claims": {"a": [["x"]]}}]}, "spec.who[0].claims.a", CLAIM),
        ({"who": [{"issuer": "b", "claims": {"a": {"b": "x"}}}]}, "spec.who[0].claims.a", CLAIM),
        ({"who": [5]}, "spec.who[0]", "must be a mapping"),
        ({"when": ""}, "spec.when", "must not be empty"),
        ({"when": "x" * 4097}, "spec.when", "must have at most 4096 characters"),
        ({"when": True}, "spec.when", "must be text"),
        ({"description": "x" * 501}, "spec.description", "must have at most 500 characters"),
        ({"ttl": {"default": "5m"}}, "spec.ttl.max", "is required"),
        ({"ttl": {"default": "15m", "max": "5m"}}, "spec.ttl", "default must not be longer than max"),
        ({"ttl": {"default": "5m", "max": 900}}, "spec.ttl.max", "must be a duration such as 90s, 15m or 2h"),
        ({"ttl": {"default": "0s", "max": "5m"}}, "spec.ttl.default", "must be longer than zero"),
        ({"limits": {"livePerTask": 0}}, "spec.limits.livePerTask", "must be at least 1"),
        ({"limits": {"livePerTask": True}}, "spec.limits.livePerTask", "must be a whole number"),
        ({"limits": {"live_per_task": 1}}, "spec.limits.live_per_task", "is not a known key"),
        ({"parameters": []}, "spec.parameters", "must be a mapping"),
        ({"Ttl": {}}, "spec.Ttl", "is not a known key"),
        ({"credential": {}}, "spec.credential.kind", "must be one of leased, token"),
        ({"credential": {"kind": "database"}}, "spec.credential.kind", "must be one of leased, token"),
        ({"credential": {"kind": ["token"]}}, "spec.credential.kind", "must be one of leased, token"),
        ({"credential": {"kind": "token", "policy": "root"}}, "spec.credential.policy", "is not a known key"),
        ({"credential": {"kind": "leased"}}, "spec.credential.rolePath", "is required"),
        ({"credential": "token"}, "spec.credential", "must be a mapping"),
    ],
)
def test_says_where_and_what_was_expected(changes: dict[str, object], field: str, description: str) -> None:
    assert violations(parts(**changes))[0] == (field, description)


@pytest.mark.parametrize("entries", [[{}], [{}, {"spiffeId": 5}], [{"spiffe_id": "a"}]])
def test_entries_that_are_all_wrong_are_not_called_too_few(entries: list[object]) -> None:
    assert "spec.who" not in [field for field, _ in violations(parts(who=entries))]


def test_only_the_spelling_of_documents_is_known() -> None:
    found = violations(
        parts(who=[{"spiffeId": "a", "spiffe_id": "b"}], credential={"kind": "leased", "role_path": "x"})
    )
    assert ("spec.who[0].spiffe_id", "is not a known key") in found
    assert ("spec.credential.role_path", "is not a known key") in found


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a/b", "a.b", "../a", "a\n", "a" * 64, "é", "a b"], ids=repr
)
def test_names_that_no_scope_has(name: str) -> None:
    ((field, description),) = violations({**parts(), "metadata": {"name": name}})
    assert field == "metadata.name"
    assert description.startswith("must match ")


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_names_that_scopes_have(name: str) -> None:
    assert parse({**parts(), "metadata": {"name": name}}).metadata.name == name


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({**parts(), "apiVersion": "v1"}, ("apiVersion", "must be 'credbroker.dev/v1'")),
        ({**parts(), "kind": "Role"}, ("kind", "must be 'Scope'")),
        ({**parts(), "status": {}}, ("status", "is not a known key")),
        ({**parts(), "spec": None}, ("spec", "must be a mapping")),
        ([], ("", "must be a mapping")),
        ("", ("", "must be a mapping")),
        ("a: 1\na: 2\n", ("", "is not readable YAML: line 2, column 1: key 'a' is given twice")),
        ("a: &x 1\nb: *x\n", ("", "is not readable YAML: line 2, column 4: aliases are not allowed")),
        ("a: !!bool x", ("", "is not readable YAML: line 1, column 4: tags are not allowed")),
        ("a: [", ("", "is not readable YAML: line 1, column 5: expected the node content, but found '<stream end>'")),
        ("#" * (MAX_DOCUMENT_BYTES + 1), ("", "must be at most 65536 bytes")),
        ("é" * (MAX_DOCUMENT_BYTES // 2 + 1), ("", "must be at most 65536 bytes")),
        ("\ud800", ("", "is not readable YAML: holds characters that YAML does not allow")),
    ],
)
def test_documents_that_are_none(document: object, expected: tuple[str, str]) -> None:
    assert violations(document)[0] == expected


def test_everything_wrong_is_named_at_once() -> None:
    found = violations(
        {
            **parts(credential={"kind": "leased", "x": 1}, ttl={"default": "5m"}, credentials={}),
            "kind": "Role",
        }
    )
    assert [field for field, _ in found] == [
        "spec.credential.rolePath",
        "spec.credential.x",
        "kind",
        "spec.ttl.max",
        "spec.credentials",
    ]


def test_a_wrong_mapping_alone_is_enough() -> None:
    assert violations(parts(credential={"kind": "leased"})) == [("spec.credential.rolePath", "is required")]


def test_the_largest_document() -> None:
    text = json.dumps(parts())
    assert parse(text + "\n#" + "x" * (MAX_DOCUMENT_BYTES - len(text) - 2)).metadata.name == "a"


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7200), ("007s", 7)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "5", "m", "5 m", "5d", "-5m", "+5m", "1.5h", "5m\n", "1h30m", "٣m", "1000000h", 5]
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be a duration"):
        parse_duration(value)


def test_documents_do_not_change() -> None:
    document = parse(parts())
    with pytest.raises(ValueError, match="frozen"):
        document.metadata.name = "b"  # type: ignore[misc]  # that it is refused is the point


def test_violations_are_plain_records() -> None:
    with pytest.raises(ScopeDocumentInvalid) as caught:
        parse("[]")
    assert caught.value.violations == (FieldViolation("", "must be a mapping"),)
