"""Compiling scopes: what is wrong is named, all at once."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.authorize import compile_scope
from broker.errors import ParametersInvalid, ScopeDocumentInvalid
from tests.unit.authorize.makers import AGENT, ISSUER, NOW, Plain, scope


def test_a_compiled_scope_knows_its_name_and_version() -> None:
    compiled = scope("reports-read", version=7)
    assert (compiled.name, compiled.version) == ("reports-read", 7)
    assert compiled.record.created_at == NOW
    assert compiled.document.spec.ttl.max == timedelta(minutes=15)
    assert compiled.document.spec.credential == Plain(kind="plain")


def test_every_wrong_part_is_named() -> None:
    with pytest.raises(ScopeDocumentInvalid) as caught:
        scope(
            who=[{"spiffeId": AGENT}, {"spiffeId": "spiffe://*/a"}, {"issuer": ISSUER, "subject": "a*"}],
            when="user == 'x'",
            parameters={"type": "object", "properties": {"a": {"maxlength": 1}}},
        )
    assert [item.field for item in caught.value.violations] == [
        "spec.who[1].spiffeId",
        "spec.who[2].subject",
        "spec.when",
        "spec.parameters.properties.a.maxlength",
    ]
    assert caught.value.message.startswith("the scope document is not valid: spec.who[1].spiffeId: must ")


def test_one_wrong_schema_is_enough() -> None:
    with pytest.raises(ScopeDocumentInvalid, match=r"^spec\.parameters\.type: must be 'object'"):
        scope(parameters={})


def test_one_wrong_condition_is_enough() -> None:
    with pytest.raises(ScopeDocumentInvalid, match=r"^spec\.when: must be a CEL expression; at 1:8: "):
        scope(when="true ==")


def test_a_document_does_not_decide_for_a_scope_of_another_name() -> None:
    compiled = scope("reports-read")
    with pytest.raises(ScopeDocumentInvalid, match=r"^metadata\.name: must be 'other'"):
        compile_scope(replace(compiled.record, name="other"), compiled.document)


def test_without_a_schema_there_are_no_parameters() -> None:
    rules = scope(parameters=None).parameters
    rules.check({})
    with pytest.raises(ParametersInvalid):
        rules.check({"a": 1})
