from pathlib import Path

import hvac
import pytest

from broker.dev.openbao import OpenBao
from tests.contract.cli.conftest import Command
from tests.contract.cli.test_scopes import write
from tests.fakes.operators import FakeBroker


@pytest.fixture
def admin(broker: Command, openbao: OpenBao) -> Command:
    broker.environ |= {
        "VAULT_ADDR": openbao.address,
        "VAULT_TOKEN": openbao.root_token.reveal(),
        "VAULT_CACERT": str(openbao.ca_file),
    }
    return broker


def policies(client: hvac.Client, prefix: str) -> list[str]:
    found: list[str] = client.adapter.list("/v1/sys/policies/acl")["data"]["keys"]
    return [name for name in found if name.startswith(prefix)]


def policy(client: hvac.Client, name: str) -> str:
    return str(client.adapter.get(f"/v1/sys/policies/acl/{name}")["data"]["policy"])


def test_setup_shows_a_plan_asks_and_writes(admin: Command, vault_admin: hvac.Client) -> None:
    for name in ("anchor", "broker", "provisioner", "reaper"):
        vault_admin.adapter.delete(f"/v1/sys/policies/acl/credbroker-{name}")
    shown = admin("vault", "setup", answer="n\n", expect=1).stdout
    assert "+ create policy credbroker-broker  (Vault)" in shown
    assert '    +path "auth/token/create/credbroker-*" {' in shown
    assert "4 to be created" in shown
    assert "credbroker-broker" not in policies(vault_admin, "credbroker-broker")
    assert "done; give the broker a token" in admin("vault", "setup", "--yes").stdout
    assert policies(vault_admin, "credbroker-broker") == ["credbroker-broker"]
    assert admin("vault", "setup").stdout == "nothing to change\n"


@pytest.mark.parametrize("identity", ["broker", "provisioner", "reaper"])
def test_policies_are_printed_as_they_are_written(identity: str, admin: Command, vault_admin: hvac.Client) -> None:
    admin("vault", "setup", "--yes")
    written = policy(vault_admin, f"credbroker-{identity}")
    assert admin("vault", "policy", identity).stdout.rstrip("\n") == written.rstrip("\n")


def test_scopes_go_to_vault_and_to_the_broker(
    admin: Command, fake: FakeBroker, vault_admin: hvac.Client, tmp_path: Path
) -> None:
    file = str(write(tmp_path, "cli-both"))
    planned = admin("scopes", "plan", file).stdout
    for change in ("create scope cli-both", "create policy credbroker-cli-both-", "create role credbroker-cli-both-"):
        assert change in planned
    assert policies(vault_admin, "credbroker-cli-both-") == []
    admin("scopes", "apply", "--yes", file)
    (name,) = policies(vault_admin, "credbroker-cli-both-")
    assert vault_admin.auth.token.read_role(name)["data"]["orphan"] is True
    assert fake.scopes["cli-both"][0].version == 1
    assert admin("scopes", "apply", file).stdout == "nothing to change\n"


def test_what_was_altered_in_vault_is_put_right(
    admin: Command, fake: FakeBroker, vault_admin: hvac.Client, tmp_path: Path
) -> None:
    file = str(write(tmp_path, "cli-altered"))
    admin("scopes", "apply", "--yes", file)
    (name,) = policies(vault_admin, "credbroker-cli-altered-")
    vault_admin.adapter.put(f"/v1/sys/policies/acl/{name}", json={"policy": 'path "*" { capabilities = ["read"] }'})
    shown = admin("scopes", "apply", "--yes", file).stdout
    assert f"~ update policy {name}  (Vault)" in shown
    assert "secret/data/reports/*" in policy(vault_admin, name)
    assert len(fake.scopes["cli-altered"]) == 1


def test_deleting_takes_role_and_policy_along(
    admin: Command, fake: FakeBroker, vault_admin: hvac.Client, tmp_path: Path
) -> None:
    kept, pruned = write(tmp_path, "cli-kept"), write(tmp_path, "cli-pruned")
    admin("scopes", "apply", "--yes", str(kept), str(pruned))
    admin("scopes", "apply", "--yes", "--prune", str(kept))
    assert policies(vault_admin, "credbroker-cli-pruned-") == []
    assert "deleted Vault policy credbroker-cli-kept-" in admin("scopes", "delete", "--yes", "cli-kept").stdout
    assert policies(vault_admin, "credbroker-cli-kept-") == []
    assert not any(fake.scopes.values())


def test_the_broker_is_not_asked_when_vault_refuses(admin: Command, fake: FakeBroker, tmp_path: Path) -> None:
    admin.environ["VAULT_TOKEN"] = "s.not-a-token"
    refused = admin("scopes", "apply", "--yes", str(write(tmp_path, "cli-refused")), expect=1).stderr
    assert refused.startswith("error: Vault refused sys/policies/acl/credbroker-cli-refused-")
    assert "s.not-a-token" not in refused
    assert fake.scopes == {}


def test_a_vault_that_is_away(admin: Command, fake: FakeBroker, tmp_path: Path) -> None:
    admin.environ["VAULT_ADDR"] = "https://127.0.0.1:1"
    refused = admin("scopes", "apply", "--yes", str(write(tmp_path, "cli-away")), expect=1).stderr
    assert "(VAULT_UNAVAILABLE) - check that Vault is up and unsealed" in refused
    assert fake.scopes == {}
