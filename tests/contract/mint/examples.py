"""One example or more of each credential kind. A kind without one fails `test_every_kind_has_an_example`."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import hvac
import hvac.exceptions
import psycopg

from broker.dev.openbao import OpenBao
from broker.dev.postgres import Postgres
from broker.document import CredentialMapping
from broker.ids import new_id
from broker.mint import KINDS
from broker.mint.anchor import create_anchor
from broker.mint.kind import CredentialKind, Holder, Minted, Order
from broker.mint.naming import role_name
from broker.mint.sync_client import sync_client
from broker.mint.vault import VaultClient
from broker.model import Anchor, Issuance, IssuanceState, JsonObject, JsonValue, Revocability
from broker.secret import Secret
from tests.contract.mint.world import document_of
from tests.fixtures.openbao import read_secret

Secrets = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Example:
    """How one mapping is used.

    `works` says whether a credential does at this moment what its scope says.
    """

    name: str
    kind: str
    mapping: dict[str, object]
    works: Callable[["World", Secrets], bool]
    schema: dict[str, object] | None = None
    parameters: JsonObject = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """Vault with the example's scope provisioned, and the broker's way to it."""

    openbao: OpenBao
    admin: hvac.Client
    vault: VaultClient
    example: Example
    postgres: Postgres | None

    @property
    def kind(self) -> CredentialKind:
        return KINDS[self.example.kind]

    @property
    def mapping(self) -> CredentialMapping:
        return document_of("example", self.example.mapping, self.example.schema).spec.credential

    @property
    def role(self) -> str:
        return role_name("example", self.mapping)

    async def anchor(self, ttl: timedelta = timedelta(minutes=10)) -> Anchor:
        return await create_anchor(
            self.vault, anchor_id=new_id(), task_id=new_id(), role=self.role, policy=self.role, ttl=ttl
        )

    def order(
        self,
        ttl: timedelta = timedelta(minutes=1),
        max_ttl: timedelta = timedelta(minutes=5),
        parameters: JsonObject | None = None,
    ) -> Order:
        return Order(
            issuance_id=new_id(),
            policy=self.role,
            mapping=self.mapping,
            parameters=self.example.parameters if parameters is None else parameters,
            ttl=ttl,
            max_ttl=max_ttl,
        )

    async def mint(self, anchor: Anchor, order: Order | None = None) -> Minted:
        order = order or self.order()
        holder: Holder | None = await self.kind.prepare(self.vault, anchor, order)
        return await self.kind.mint(self.vault, anchor, holder, order)

    async def works(self, minted: Minted) -> bool:
        return await asyncio.to_thread(self.example.works, self, minted.secret.reveal())

    def issuance(self, minted: Minted) -> Issuance:
        return Issuance(
            id=new_id(),
            task_id=new_id(),
            anchor_id=new_id(),
            agent="spiffe://example.test/agent",
            scope="example",
            scope_version=1,
            kind=self.example.kind,
            parameters=self.example.parameters,
            state=IssuanceState.ACTIVE,
            revocability=self.kind.revocability(self.mapping),
            renewable=minted.renewable,
            created_at=datetime.now(UTC),
            expires_at=minted.expires_at,
            max_expires_at=minted.max_expires_at,
            fingerprint="",
            accessor=minted.accessor,
            lease_id=minted.lease_id,
        )

    @property
    def individual(self) -> bool:
        return self.kind.revocability(self.mapping) is Revocability.INDIVIDUAL

    def as_agent(self, secrets: Secrets) -> hvac.Client:
        """Return what an agent makes of a Vault token."""
        token = secrets["token"]
        if not isinstance(token, str):
            raise TypeError("the token is no text")
        return sync_client(self.openbao.address, token=Secret(token), ca_file=self.openbao.ca_file)


def reads_its_secret(world: World, secrets: Secrets) -> bool:
    try:
        return read_secret(world.as_agent(secrets), "app/config") == {"value": "for the scope"}
    except hvac.exceptions.Forbidden:
        return False


def connects(world: World, secrets: Secrets) -> bool:
    try:
        with connect(world, secrets) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def connect(world: World, secrets: Secrets) -> psycopg.Connection[tuple[object, ...]]:
    if world.postgres is None:
        raise RuntimeError("the example needs a database")
    return psycopg.connect(
        host=world.postgres.host,
        port=world.postgres.port,
        user=str(secrets["username"]),
        password=str(secrets["password"]),
        dbname="postgres",
    )


READ_APP = {"path": "secret/data/app/*", "capabilities": ["read"]}

EXAMPLES = (
    Example("batch token", "vault_token", {"kind": "vault_token", "rules": [READ_APP]}, reads_its_secret),
    Example(
        "service token",
        "vault_token",
        {"kind": "vault_token", "token": "service", "rules": [READ_APP]},
        reads_its_secret,
    ),
    Example(
        "database user",
        "leased",
        {"kind": "leased", "path": "database/creds/{role}"},
        connects,
        schema={
            "type": "object",
            "properties": {"role": {"type": "string"}},
            "required": ["role"],
            "additionalProperties": False,
        },
        parameters={"role": "reports"},
        needs=("databases",),
    ),
)
