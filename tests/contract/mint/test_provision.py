"""Bringing a real Vault to what scopes ask for."""

import asyncio

import hvac
import pytest

from broker.dev.openbao import OpenBao
from broker.errors import MintFailed, ScopeDocumentInvalid, VaultUnavailable
from broker.mint.naming import role_name
from broker.mint.provision import (
    admin_client,
    apply_scope,
    apply_setup,
    plan_scope,
    plan_setup,
    remove_scope,
)
from broker.secret import Secret
from tests.contract.mint.world import document_of
from tests.fakes.vault import fake_vault, raw, replaced

READ: dict[str, object] = {"kind": "vault_token", "rules": [{"path": "secret/data/a", "capabilities": ["read"]}]}
WRITE: dict[str, object] = {
    "kind": "vault_token",
    "rules": [{"path": "secret/data/a", "capabilities": ["create", "update"]}],
}


def actions(changes: object) -> list[str]:
    return [change.action for change in changes]  # type: ignore[attr-defined]


def test_a_plan_shows_what_applying_does_and_applying_twice_does_nothing(
    provisioned: OpenBao, vault_admin: hvac.Client
) -> None:
    document = document_of("planned", READ)
    planned = plan_scope(vault_admin, document)
    assert actions(planned) == ["create", "create"]
    assert [change.kind for change in planned] == ["policy", "role"]
    assert {change.name for change in planned} == {role_name("planned", document.spec.credential)}
    assert [change.before for change in planned] == ["", ""]
    assert planned[0].after == 'path "secret/data/a" {\n  capabilities = ["read"]\n}\n'
    assert "allowed_policies" in planned[1].after
    assert actions(plan_scope(vault_admin, document)) == ["create", "create"]

    assert apply_scope(vault_admin, document) == planned

    assert actions(plan_scope(vault_admin, document)) == ["none", "none"]
    assert actions(apply_scope(vault_admin, document)) == ["none", "none"]


def test_a_changed_mapping_gets_a_role_of_its_own(provisioned: OpenBao, vault_admin: hvac.Client) -> None:
    apply_scope(vault_admin, document_of("changing", READ))
    assert actions(plan_scope(vault_admin, document_of("changing", WRITE))) == ["create", "create"]
    apply_scope(vault_admin, document_of("changing", WRITE))
    assert actions(plan_scope(vault_admin, document_of("changing", READ))) == ["none", "none"]


@pytest.mark.parametrize(
    "drift",
    [
        {"allowed_policies": ["root"]},
        {"allowed_policies_glob": ["*"]},
        {"allowed_entity_aliases": ["*"]},
        {"orphan": False},
        {"renewable": True},
        {"token_type": "batch", "token_explicit_max_ttl": 0},
        {"token_no_default_policy": False},
        {"token_explicit_max_ttl": 0},
        {"token_period": 3600},
        {"token_num_uses": 5},
        {"token_bound_cidrs": ["10.0.0.0/8"]},
        {"path_suffix": "other"},
    ],
    ids=str,
)
def test_drift_of_a_role_shows_and_is_put_right(
    provisioned: OpenBao, vault_admin: hvac.Client, drift: dict[str, object]
) -> None:
    document = document_of("drifting", READ)
    role = apply_scope(vault_admin, document)[1].name
    vault_admin.adapter.post(f"/v1/auth/token/roles/{role}", json=drift)
    changes = plan_scope(vault_admin, document)
    assert actions(changes) == ["none", "update"]
    assert changes[1].before != changes[1].after
    apply_scope(vault_admin, document)
    assert actions(plan_scope(vault_admin, document)) == ["none", "none"]


def test_drift_of_a_policy_shows_and_is_put_right(provisioned: OpenBao, vault_admin: hvac.Client) -> None:
    document = document_of("drifting-policy", READ)
    name = apply_scope(vault_admin, document)[0].name
    vault_admin.adapter.post(f"/v1/sys/policies/acl/{name}", json={"policy": 'path "*" { capabilities = ["sudo"] }'})
    changes = apply_scope(vault_admin, document)
    assert actions(changes) == ["update", "none"]
    assert changes[0].before == 'path "*" { capabilities = ["sudo"] }'
    assert actions(plan_scope(vault_admin, document)) == ["none", "none"]


def test_removing_takes_role_and_policy_of_one_mapping(provisioned: OpenBao, vault_admin: hvac.Client) -> None:
    old, new = document_of("leaving", READ), document_of("leaving", WRITE)
    apply_scope(vault_admin, old)
    apply_scope(vault_admin, new)
    removed = remove_scope(vault_admin, "leaving", old.spec.credential)
    assert [(change.action, change.kind, change.after) for change in removed] == [
        ("delete", "role", ""),
        ("delete", "policy", ""),
    ]
    assert actions(remove_scope(vault_admin, "leaving", old.spec.credential)) == ["none", "none"]
    assert actions(plan_scope(vault_admin, new)) == ["none", "none"]


def test_the_setup_is_idempotent_and_shows_drift(provisioned: OpenBao, vault_admin: hvac.Client) -> None:
    assert set(actions(apply_setup(vault_admin))) == {"none"}
    vault_admin.adapter.post("/v1/sys/policies/acl/credbroker-reaper", json={"policy": "# nothing"})
    assert actions(plan_setup(vault_admin)).count("none") == 3
    apply_setup(vault_admin)
    assert set(actions(plan_setup(vault_admin))) == {"none"}


def test_a_mapping_that_the_schema_does_not_serve_is_refused_before_vault_is_asked(vault_admin: hvac.Client) -> None:
    with pytest.raises(ScopeDocumentInvalid, match="must declare the parameter 'role' and require it"):
        plan_scope(vault_admin, document_of("x", {"kind": "leased", "path": "database/creds/{role}"}))


def test_refusals_and_outages_are_told_apart(openbao: OpenBao) -> None:
    document = document_of("x", READ)
    stranger = admin_client(openbao.address, Secret("s.nobody"), ca_file=openbao.ca_file)
    with pytest.raises(MintFailed, match="permission denied"):
        plan_scope(stranger, document)
    with pytest.raises(VaultUnavailable, match="SSLError"):
        plan_scope(admin_client(openbao.address, Secret("s.nobody")), document)
    with pytest.raises(VaultUnavailable):
        plan_scope(admin_client("http://127.0.0.1:9", Secret("s.nobody")), document)


async def test_answers_that_are_not_vaults_are_an_outage() -> None:
    document = document_of("x", READ)
    async with fake_vault() as vault:
        client = admin_client(vault.address, Secret("s.admin"))
        name = role_name("x", document.spec.credential)
        for reply in (
            raw(200, b"<html>hello</html>", Content_Type="text/html"),
            raw(404, b"<html>not found</html>", Content_Type="text/html"),
            raw(307, b"", Location="/v1/trap"),
            replaced(500, {"errors": ["no"]}),
        ):
            vault.faults = {f"sys/policies/acl/{name}": reply}
            with pytest.raises(VaultUnavailable):
                await asyncio.to_thread(plan_scope, client, document)
