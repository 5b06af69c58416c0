import pytest

from broker.errors import ParametersInvalid, ScopeDocumentInvalid
from broker.mint import KINDS, check_document
from broker.mint.naming import PREFIX, role_name
from broker.mint.policies import own_policies, policy_text
from broker.model import Revocability
from tests.contract.mint.world import document_of

RULE = {"path": "secret/data/app", "capabilities": ["read"]}
TOKEN: dict[str, object] = {"kind": "vault_token", "rules": [RULE]}
LEASED: dict[str, object] = {"kind": "leased", "path": "database/creds/{role}"}
POSTED: dict[str, object] = {
    "kind": "leased",
    "path": "aws/sts/{role}",
    "method": "POST",
    "request": {"ttl": "15m", "role_arn": "{arn}"},
}


def wrong(mapping: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ScopeDocumentInvalid) as refused:
        document_of("x", mapping)
    return {violation.field: violation.description for violation in refused.value.violations}


@pytest.mark.parametrize("capability", ["sudo", "root", "deny", "Read", " read", "subscribe"])
def test_capabilities_are_an_allow_list(capability: str) -> None:
    rule = {"path": "secret/data/app", "capabilities": ["read", capability]}
    assert "spec.credential.rules[0].capabilities[1]" in wrong({"kind": "vault_token", "rules": [rule]})


def test_wrong_mappings_name_the_field() -> None:
    assert "spec.credential.rules" in wrong({"kind": "vault_token", "rules": []})
    assert "spec.credential.rules[0].capabilities" in wrong(
        {"kind": "vault_token", "rules": [{"path": "secret/a", "capabilities": []}]}
    )
    assert "spec.credential.rules[0].capabilities" in wrong(
        {"kind": "vault_token", "rules": [{"path": "secret/a", "capabilities": ["read", "read"]}]}
    )
    assert (
        "power over Vault"
        in wrong({"kind": "vault_token", "rules": [{"path": "sys/*", "capabilities": ["read"]}]})[
            "spec.credential.rules[0].path"
        ]
    )
    assert "spec.credential.policies" in wrong({**TOKEN, "policies": ["root"]})
    assert "spec.credential.token" in wrong({**TOKEN, "token": "recovery"})
    assert "spec.credential.path" in wrong({"kind": "leased", "path": "auth/{role}"})
    assert "spec.credential.method" in wrong({**LEASED, "method": "DELETE"})
    assert "spec.credential" in wrong({**LEASED, "request": {"a": "b"}})
    assert "spec.credential.request.a" in wrong({**POSTED, "request": {"a": "x-{role}"}})


def test_revocability() -> None:
    def of(mapping: dict[str, object]) -> Revocability:
        parsed = document_of("x", mapping).spec.credential
        return KINDS[parsed.kind].revocability(parsed)

    assert of(TOKEN) is Revocability.WITH_TASK
    assert of({**TOKEN, "token": "service"}) is Revocability.INDIVIDUAL
    assert of(LEASED) is Revocability.INDIVIDUAL


def test_policies_hold_the_rules_and_nothing_else() -> None:
    def text(mapping: dict[str, object]) -> str:
        parsed = document_of("x", mapping).spec.credential
        return policy_text(KINDS[parsed.kind].policy(parsed))

    assert text(TOKEN) == 'path "secret/data/app" {\n  capabilities = ["read"]\n}\n'
    assert text(LEASED) == 'path "database/creds/+" {\n  capabilities = ["read"]\n}\n'
    assert text(POSTED) == 'path "aws/sts/+" {\n  capabilities = ["create", "update"]\n}\n'


def test_the_name_follows_the_meaning_of_a_mapping() -> None:
    def name(mapping: dict[str, object], scope: str = "x") -> str:
        return role_name(scope, document_of(scope, mapping).spec.credential)

    assert name(TOKEN) == name({"rules": [dict(reversed(RULE.items()))], "token": "batch", "kind": "vault_token"})
    assert name(TOKEN) != name({**TOKEN, "token": "service"})
    assert name(TOKEN) != name(TOKEN, "y")
    assert name(TOKEN).startswith(f"{PREFIX}x-")


def test_no_scope_can_take_the_name_of_the_brokers_own_policies() -> None:
    parsed = document_of("x", TOKEN).spec.credential
    for own in own_policies():
        assert role_name(own.removeprefix(PREFIX), parsed) not in own_policies()


def test_parameters_that_are_posted_may_be_anything_and_must_be_there() -> None:
    mapping = document_of("x", POSTED).spec.credential
    KINDS["leased"].check(mapping, {"role": "deploy", "arn": "arn:aws:iam::1:role/x"})
    with pytest.raises(ParametersInvalid, match="parameter arn is needed"):
        KINDS["leased"].check(mapping, {"role": "deploy"})


def test_the_schema_must_ask_for_what_the_mapping_uses() -> None:
    def checked(properties: dict[str, object], required: list[str]) -> None:
        schema: dict[str, object] = {"type": "object", "properties": properties, "required": required}
        check_document(document_of("x", POSTED, schema))

    text = {"type": "string"}
    checked({"role": text, "arn": {}}, ["role", "arn"])
    with pytest.raises(ScopeDocumentInvalid, match="'arn' and require it"):
        checked({"role": text, "arn": text}, ["role"])
    with pytest.raises(ScopeDocumentInvalid, match="'arn' and require it"):
        checked({"role": text}, ["role", "arn"])
    with pytest.raises(ScopeDocumentInvalid, match=r"spec\.parameters\.properties\.role: must be of type string"):
        checked({"role": {"type": ["string", "null"]}, "arn": text}, ["role", "arn"])


def test_a_mapping_of_another_kind_is_misuse() -> None:
    token, leased = document_of("x", TOKEN).spec.credential, document_of("x", LEASED).spec.credential
    with pytest.raises(TypeError):
        KINDS["leased"].policy(token)
    with pytest.raises(TypeError):
        KINDS["vault_token"].policy(leased)
