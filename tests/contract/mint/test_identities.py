"""The broker's identities in Vault can do their work and nothing else."""

from pathlib import Path

import hvac
import hvac.exceptions
import pytest

from broker.dev.openbao import OpenBao
from broker.mint.naming import BROKER_POLICY, PROVISIONER_POLICY, REAPER_POLICY
from broker.mint.policies import own_policies
from broker.mint.provision import apply_scope, remove_scope
from broker.mint.sync_client import sync_client
from tests.contract.mint.world import document_of
from tests.fixtures.openbao import make_token

# Method, path and body.
Attempt = tuple[str, str, dict[str, object] | None]

MAPPING: dict[str, object] = {
    "kind": "vault_token",
    "rules": [{"path": "secret/data/app/*", "capabilities": ["read"]}],
}

NOBODY_MAY: tuple[Attempt, ...] = (
    ("GET", "secret/data/app/config", None),
    ("GET", "secret/metadata/app?list=true", None),
    ("POST", "secret/data/app/config", {"data": {"a": "b"}}),
    ("GET", "database/creds/reports", None),
    ("GET", "sys/policies/acl/root", None),
    ("POST", "sys/policies/acl/other", {"policy": ""}),
    ("POST", "sys/policies/acl/credbroker-broker", {"policy": ""}),
    ("POST", "sys/policies/acl/credbroker-provisioner", {"policy": ""}),
    ("DELETE", "sys/policies/acl/credbroker-reaper", None),
    ("POST", "auth/token/create", {"policies": ["root"]}),
    ("POST", "auth/token/create", {"type": "batch"}),
    ("POST", "auth/token/create-orphan", {}),
    ("POST", "auth/token/create/other", {}),
    ("POST", "auth/token/lookup", {"token": "x"}),
    ("POST", "auth/token/revoke", {"token": "x"}),
    ("POST", "auth/token/revoke-orphan", {"token": "x"}),
    ("POST", "sys/leases/revoke-prefix/auth/token", {}),
    ("POST", "sys/leases/revoke-force/auth/token", {}),
    ("LIST", "sys/leases/lookup/auth/token/create/", None),
    ("GET", "sys/mounts", None),
    ("POST", "sys/mounts/other", {"type": "kv"}),
    ("POST", "sys/auth/other", {"type": "approle"}),
    ("GET", "sys/audit", None),
    ("POST", "sys/seal", {}),
    ("POST", "sys/step-down", {}),
    ("LIST", "identity/entity/id", None),
    ("POST", "auth/token/roles/other", {"allowed_policies": ["root"]}),
)
BROKER_MAY_NOT: tuple[Attempt, ...] = (
    *NOBODY_MAY,
    ("GET", "sys/policies/acl/credbroker-broker", None),
    ("POST", "auth/token/roles/credbroker-x", {"allowed_policies": ["root"]}),
    ("GET", "auth/token/roles/credbroker-x", None),
    ("LIST", "auth/token/accessors", None),
)
PROVISIONER_MAY_NOT: tuple[Attempt, ...] = (
    *NOBODY_MAY,
    ("POST", "auth/token/create/credbroker-x", {}),
    ("LIST", "auth/token/accessors", None),
    ("POST", "auth/token/lookup-accessor", {"accessor": "x"}),
    ("POST", "auth/token/revoke-accessor", {"accessor": "x"}),
    ("LIST", "sys/policies/acl", None),
)
REAPER_MAY_NOT: tuple[Attempt, ...] = (
    *NOBODY_MAY,
    ("POST", "auth/token/create/credbroker-x", {}),
    ("POST", "auth/token/renew-accessor", {"accessor": "x"}),
    ("POST", "auth/token/roles/credbroker-x", {"allowed_policies": ["root"]}),
)
REFUSED = [
    pytest.param(policy, method, path, body, id=f"{policy} {method} {path}")
    for policy, refused in (
        (BROKER_POLICY, BROKER_MAY_NOT),
        (PROVISIONER_POLICY, PROVISIONER_MAY_NOT),
        (REAPER_POLICY, REAPER_MAY_NOT),
    )
    for method, path, body in refused
]


@pytest.fixture(scope="module")
def identities(provisioned: OpenBao, vault_admin: hvac.Client) -> dict[str, hvac.Client]:
    return {
        policy: sync_client(provisioned.address, token=make_token(vault_admin, [policy]), ca_file=provisioned.ca_file)
        for policy in (BROKER_POLICY, PROVISIONER_POLICY, REAPER_POLICY)
    }


@pytest.mark.parametrize(("policy", "method", "path", "body"), REFUSED)
def test_is_refused(
    identities: dict[str, hvac.Client], policy: str, method: str, path: str, body: dict[str, object] | None
) -> None:
    with pytest.raises(hvac.exceptions.Forbidden):
        identities[policy].adapter.request(method, f"/v1/{path}", json=body)


def test_the_broker_cannot_get_more_than_a_roles_policies(
    identities: dict[str, hvac.Client], vault_admin: hvac.Client
) -> None:
    role = apply_scope(vault_admin, document_of("mine", MAPPING))[1].name
    other = apply_scope(vault_admin, document_of("other", MAPPING))[1].name
    for policies in (["root"], [BROKER_POLICY], [other], ["default"], [role, PROVISIONER_POLICY]):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            identities[BROKER_POLICY].adapter.post(f"/v1/auth/token/create/{role}", json={"policies": policies})


def test_a_role_bounds_anchors_whatever_is_asked_for(
    identities: dict[str, hvac.Client], vault_admin: hvac.Client
) -> None:
    role = apply_scope(vault_admin, document_of("mine", MAPPING))[1].name
    asked = {"policies": [role], "ttl": "720h", "explicit_max_ttl": "720h", "period": "1h", "type": "batch"}
    with pytest.raises(hvac.exceptions.InvalidRequest):
        identities[BROKER_POLICY].adapter.post(f"/v1/auth/token/create/{role}", json={**asked, "period": "1h"})
    del asked["period"], asked["type"]
    made = identities[BROKER_POLICY].adapter.post(f"/v1/auth/token/create/{role}", json={**asked, "renewable": True})
    assert made["auth"]["lease_duration"] == 24 * 3600
    assert made["auth"]["renewable"] is False
    assert made["auth"]["orphan"] is True


def test_the_provisioner_can_provision_and_clean_up(identities: dict[str, hvac.Client]) -> None:
    document = document_of("provisioned", MAPPING)
    client = identities[PROVISIONER_POLICY]
    assert [change.action for change in apply_scope(client, document)] == ["create", "create"]
    removed = remove_scope(client, "provisioned", document.spec.credential)
    assert [change.action for change in removed] == ["delete", "delete"]


def test_each_identity_can_look_after_its_own_token(identities: dict[str, hvac.Client]) -> None:
    for client in identities.values():
        client.adapter.get("/v1/auth/token/lookup-self")
        client.adapter.post("/v1/auth/token/renew-self")


def test_the_policies_for_admins_to_read_are_those_that_are_installed() -> None:
    folder = Path(__file__).parents[3] / "deploy" / "vault"
    assert {file.stem: file.read_text() for file in folder.glob("*.hcl")} == own_policies()
