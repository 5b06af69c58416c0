"""A provisioned OpenBao, a broker's client for it, and one example of use for each credential kind."""

from collections.abc import AsyncIterator

import hvac
import pytest

from broker.clock import SystemClock
from broker.dev.openbao import OpenBao
from broker.dev.postgres import Postgres
from broker.mint.naming import BROKER_POLICY, REAPER_POLICY
from broker.mint.provision import apply_scope, apply_setup
from broker.mint.vault import VaultClient
from tests.contract.mint.examples import EXAMPLES, Example, World
from tests.contract.mint.world import Token, document_of, vault_settings
from tests.fixtures.openbao import make_token, put_secret


@pytest.fixture(scope="session")
def provisioned(openbao: OpenBao, vault_admin: hvac.Client, kv: str) -> OpenBao:
    apply_setup(vault_admin)
    put_secret(vault_admin, "app/config", {"value": "for the scope"})
    put_secret(vault_admin, "other/config", {"value": "for somebody else"})
    return openbao


@pytest.fixture(scope="session")
def databases(provisioned: OpenBao, vault_admin: hvac.Client, postgres: Postgres) -> Postgres:
    """A database engine whose role ``reports`` makes PostgreSQL users."""
    vault_admin.sys.enable_secrets_engine("database", path="database")
    admin = vault_admin.adapter
    admin.post(
        "/v1/database/config/app",
        json={
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": ["reports"],
            "connection_url": (
                f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}/postgres?sslmode=disable"
            ),
            "username": postgres.user,
            "password": postgres.password.reveal(),
        },
    )
    admin.post(
        "/v1/database/roles/reports",
        json={
            "db_name": "app",
            "creation_statements": [
                "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
            ],
            "revocation_statements": [
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'",
                'DROP ROLE IF EXISTS "{{name}}"',
            ],
            "default_ttl": "1h",
            "max_ttl": "24h",
        },
    )
    return postgres


@pytest.fixture(scope="session")
def broker_token(provisioned: OpenBao, vault_admin: hvac.Client) -> Token:
    return Token(make_token(vault_admin, [BROKER_POLICY]))


@pytest.fixture(scope="session")
def reaper_token(provisioned: OpenBao, vault_admin: hvac.Client) -> Token:
    return Token(make_token(vault_admin, [REAPER_POLICY]))


@pytest.fixture
async def vault(provisioned: OpenBao, broker_token: Token) -> AsyncIterator[VaultClient]:
    client = VaultClient(vault_settings(provisioned), broker_token, SystemClock())
    yield client
    await client.close()


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    chosen: Example = request.param
    for fixture in chosen.needs:
        request.getfixturevalue(fixture)
    return chosen


@pytest.fixture
def world(example: Example, request: pytest.FixtureRequest, vault_admin: hvac.Client, vault: VaultClient) -> World:
    apply_scope(vault_admin, document_of("example", example.mapping, example.schema))
    return World(
        openbao=request.getfixturevalue("provisioned"),
        admin=vault_admin,
        vault=vault,
        example=example,
        postgres=request.getfixturevalue("postgres") if "databases" in example.needs else None,
    )
