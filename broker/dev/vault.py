"""What the stack's OpenBao holds: an example secret, the database engine, and the broker's identities."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import hvac

from broker.dev.databases import READER_ROLE, REPORTS_DATABASE, VAULT_USER
from broker.dev.files import write_private
from broker.dev.openbao import OpenBao
from broker.dev.postgres import Postgres
from broker.mint import provision
from broker.mint.naming import BROKER_POLICY, PROVISIONER_POLICY, REAPER_POLICY
from broker.secret import Secret, SecretText

SECRET_PATH = "reports/quarterly"
DATABASE_ROLE = "reports-reader"

_CREATE_USER = f"""
CREATE ROLE "{{{{name}}}}" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE {READER_ROLE};
""".strip()
# First no new session, then none that is open, then no user.
_DROP_USER = """
ALTER ROLE "{{name}}" NOLOGIN;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
DROP ROLE IF EXISTS "{{name}}";
""".strip()


@dataclass(frozen=True, slots=True)
class AppRole:
    """One of the broker's identities in Vault."""

    role_id: str
    secret_id_file: Path


@dataclass(frozen=True, slots=True)
class VaultIdentities:
    """Who works with Vault.

    Attributes:
        broker: Has the broker's policy and nothing else.
        reaper: Has the reaper's.
        provisioner: Token for applying scopes.
    """

    broker: AppRole
    reaper: AppRole
    provisioner: SecretText


def prepare(server: OpenBao, database: Postgres, database_password: SecretText, folder: Path) -> VaultIdentities:
    """Set Vault up; what is there already is brought up to date.

    Args:
        server: The running server.
        database: Where the database engine makes users.
        database_password: Of Vault's user there.
        folder: Gets the broker's AppRole secrets.
    """
    client = server.client()
    server.mount_kv("secret")
    _mount_databases(client)
    _write(client, f"secret/data/{SECRET_PATH}", {"data": {"title": "Quarterly report", "recipient": "the board"}})
    _prepare_database(client, database, database_password)
    provision.apply_setup(client)
    if "approle/" not in client.adapter.get("/v1/sys/auth")["data"]:
        _write(client, "sys/auth/approle", {"type": "approle"})
    token = {"policies": [PROVISIONER_POLICY], "no_default_policy": True, "ttl": "768h", "display_name": "provisioner"}
    made = client.adapter.post("/v1/auth/token/create-orphan", json=token)
    return VaultIdentities(
        broker=_app_role(client, BROKER_POLICY, folder / "vault-broker-secret-id"),
        reaper=_app_role(client, REAPER_POLICY, folder / "vault-reaper-secret-id"),
        provisioner=Secret(made["auth"]["client_token"]),
    )


def _prepare_database(client: hvac.Client, database: Postgres, password: SecretText) -> None:
    address = f"{database.host}:{database.port}/{REPORTS_DATABASE}"
    _write(
        client,
        f"database/config/{REPORTS_DATABASE}",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{address}?sslmode=disable",
            "username": VAULT_USER,
            "password": password.reveal(),
            "allowed_roles": [DATABASE_ROLE],
            "password_authentication": "scram-sha-256",
        },
    )
    _write(
        client,
        f"database/roles/{DATABASE_ROLE}",
        {
            "db_name": REPORTS_DATABASE,
            "creation_statements": [_CREATE_USER],
            "revocation_statements": [_DROP_USER],
            "default_ttl": "30m",
            "max_ttl": "1h",
        },
    )


def _app_role(client: hvac.Client, policy: str, file: Path) -> AppRole:
    role = {
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_ttl": "1h",
        "token_max_ttl": "24h",
        "secret_id_ttl": 0,
        "secret_id_num_uses": 0,
    }
    _write(client, f"auth/approle/role/{policy}", role)
    role_id = client.adapter.get(f"/v1/auth/approle/role/{policy}/role-id")["data"]["role_id"]
    if not file.exists():
        made = client.adapter.post(f"/v1/auth/approle/role/{policy}/secret-id")
        write_private(file, made["data"]["secret_id"])
    return AppRole(role_id, file)


def _mount_databases(client: hvac.Client) -> None:
    if "database/" not in client.adapter.get("/v1/sys/mounts")["data"]:
        _write(client, "sys/mounts/database", {"type": "database"})


def _write(client: hvac.Client, path: str, body: dict[str, object]) -> None:
    client.adapter.post(f"/v1/{path}", json=body)


def load_or_make_password(file: Path) -> SecretText:
    """Return the password in a file; made in the first run."""
    if not file.exists():
        write_private(file, secrets.token_hex(16))
    return Secret(file.read_text())
