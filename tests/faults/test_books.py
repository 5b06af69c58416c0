"""The comparison of OpenBao's books with the records finds every way in which they can differ."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from credbroker.v1 import credential_service_pb2, task_service_pb2
from psycopg import sql
from sqlalchemy import NullPool, Table, create_engine, insert, select, update

from broker.dev.postgres import Postgres
from broker.mint.children import ISSUANCE_META
from broker.model import AnchorState, IssuanceState
from broker.store import schema
from tests.fixtures.books import Books
from tests.fixtures.records import a_revocation, a_task
from tests.fixtures.vault_log import MadeToken
from tests.fixtures.world import Caller, World

SCOPES = {"reports-secret": {}, "reports-service": {}, "reports-db": {"role": "readonly"}}


class Day:
    """One credential of each kind in one task, and what OpenBao made for it."""

    def __init__(self, books: Books, agent: Caller) -> None:
        self.task = ""
        self.issued: dict[str, str] = {}
        self._books = books
        self._agent = agent

    async def issue_all(self) -> "Day":
        for scope, parameters in SCOPES.items():
            made = await self._agent.issue(scope, task_id=self.task or None, parameters=parameters)
            self.task, self.issued[scope] = made.task.id, made.credential.issuance_id
        self._books.handed_out |= set(self.issued.values())
        assert self._books.mismatches() == []
        return self

    def token(self, scope: str) -> MadeToken:
        return next(one for one in self._books.made.tokens.values() if one.issuance == self.issued[scope])

    def anchor(self, scope: str) -> MadeToken:
        return next(one for one in self._books.made.tokens.values() if one.accessor == self.token(scope).maker)


class Tables:
    """The records, changed behind the broker's back."""

    def __init__(self, world: World) -> None:
        self._engine = create_engine(world.settings.database.url.get_secret_value(), poolclass=NullPool)

    @contextmanager
    def changed(self, table: Table, row_id: str, **values: Any) -> Iterator[None]:
        """Change a row for a while."""
        with self._engine.begin() as conn:
            before = conn.execute(select(*(table.c[name] for name in values)).where(table.c.id == row_id)).one()
            conn.execute(update(table).where(table.c.id == row_id).values(values))
        yield
        with self._engine.begin() as conn:
            conn.execute(update(table).where(table.c.id == row_id).values(before._asdict()))

    def insert(self, table: Table, **values: Any) -> None:
        with self._engine.begin() as conn:
            conn.execute(insert(table).values(values))


def only(books: Books) -> str:
    (found,) = books.mismatches()
    return found


async def test_the_books_of_an_ordinary_day_match(world: World, books: Books) -> None:
    agent = world.caller()
    day = await Day(books, agent).issue_all()
    assert len(books.made.tokens) == 6, "three anchors, two credentials and one holder"
    assert len(books.made.leases) == 1

    service = day.issued["reports-service"]
    await agent.credentials.RenewCredential(credential_service_pb2.RenewCredentialRequest(issuance_id=service))
    await agent.credentials.RevokeCredential(credential_service_pb2.RevokeCredentialRequest(issuance_id=service))
    await books.match()
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=day.task))
    await books.match()
    await books.none_alive()


async def test_what_no_record_knows_is_found(world: World, books: Books) -> None:
    """Made behind the broker's back, with its own token and with what hangs from it."""
    day = await Day(books, world.caller()).issue_all()
    broker, anchor = (
        world.vault(token).adapter
        for token in ((world.folder / "vault-token").read_text(), day.anchor("reports-db").secret)
    )
    known = world.admin.adapter.post("/v1/auth/token/lookup", json={"token": day.anchor("reports-db").secret})["data"]
    role = f"/v1/auth/token/create/{known['role']}"
    made = broker.post(role, json={"policies": known["policies"], "ttl": "1h"})["auth"]
    assert only(books).startswith(f"alive without a record: anchor {made['accessor']}")

    holder = world.vault(made["client_token"]).adapter.post("/v1/auth/token/create", json={"policies": [known["role"]]})
    world.vault(holder["auth"]["client_token"]).adapter.get("/v1/reporting-db/creds/readonly")
    found = books.mismatches()
    assert [line.partition(": ")[2].split(" ")[0] for line in found] == ["anchor", "anchor", "lease"]
    world.admin.auth.token.revoke_accessor(made["accessor"])
    await books.match()

    child = {"policies": [known["role"]], "meta": {ISSUANCE_META: "unknown"}}
    service = anchor.post("/v1/auth/token/create", json={**child, "type": "service"})["auth"]
    assert only(books).startswith(f"alive without a record: service token {service['accessor']}")
    world.admin.auth.token.revoke_accessor(service["accessor"])
    anchor.post("/v1/auth/token/create", json={**child, "type": "batch", "ttl": "1h"})
    assert books.mismatches() == [], "nobody has its secret, and it dies with the anchor"

    books.handed_out.add("unknown")
    assert only(books) == "handed out without a record: issuance unknown"


async def test_what_is_alive_and_called_dead_is_found(world: World, books: Books, postgres: Postgres) -> None:
    day = await Day(books, world.caller()).issue_all()
    await world.app.stop()
    tables, now = Tables(world), datetime.now(UTC)
    kinds = {"reports-secret": "batch token", "reports-service": "service token", "reports-db": "service token"}

    for scope, kind in kinds.items():
        with tables.changed(schema.issuances, day.issued[scope], state=IssuanceState.REVOKED, ended_at=now):
            found = books.mismatches()
        assert found[0].startswith(f"alive, but issuance {day.issued[scope]} is revoked: {kind}")
        assert len(found) == (2 if scope == "reports-db" else 1), "the lease beside its holder"
    anchor = day.anchor("reports-db").anchor
    with tables.changed(schema.anchors, anchor, state=AnchorState.GONE):
        assert only(books).startswith(f"alive, but anchor {anchor} is gone")
    with tables.changed(schema.tasks, day.task, revocation_confirmed_at=now, ended_at=now):
        assert len(books.mismatches()) == len(books.made.tokens) + len(books.made.leases)
    undelivered = {"state": IssuanceState.FAILED, "ended_at": now + timedelta(minutes=1)}
    with tables.changed(schema.issuances, day.issued["reports-secret"], **undelivered):
        assert books.mismatches() == [], "its time is not over, the record says"

    (lease,) = books.made.leases.values()
    login, password = sql.Identifier(lease.secret["username"]), sql.Literal(lease.secret["password"])
    world.admin.adapter.put(f"/v1/sys/leases/revoke-force/{lease.lease_id}")
    world.admin.auth.token.revoke_accessor(lease.accessor)
    with (
        psycopg.connect(postgres.dsn(), autocommit=True) as connection,
        tables.changed(schema.issuances, day.issued["reports-db"], state=IssuanceState.REVOKED),
    ):
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(login, password))
        assert "is revoked: lease" in only(books), "OpenBao forgot the lease, and its login still opens the database"
        connection.execute(sql.SQL("DROP ROLE {}").format(login))


async def test_what_is_dead_and_called_alive_is_found(world: World, books: Books) -> None:
    day = await Day(books, world.caller()).issue_all()
    await world.app.stop()
    tables = Tables(world)

    world.admin.auth.token.revoke_accessor(day.token("reports-service").accessor)
    assert only(books).startswith(f"dead, but its record {day.issued['reports-service']} is active: service token")
    with tables.changed(schema.issuances, day.issued["reports-service"], expires_at=datetime.now(UTC)):
        assert books.mismatches() == [], "its time is over, the record says"
    world.admin.auth.token.revoke_accessor(day.anchor("reports-secret").accessor)
    assert [line.partition(": ")[2].split(" ")[0] for line in books.mismatches()] == ["anchor", "batch", "service"]
    with tables.changed(schema.issuances, day.issued["reports-db"], accessor="invented", lease_id="invented"):
        found = books.mismatches()
    assert "recorded, but never made by OpenBao: token invented" in found
    assert "recorded, but never made by OpenBao: lease invented" in found


async def test_what_is_half_done_is_found(world: World, books: Books) -> None:
    day = await Day(books, world.caller()).issue_all()
    await world.app.stop()
    tables, now = Tables(world), datetime.now(UTC)

    issuance, anchor = day.issued["reports-db"], day.anchor("reports-db").anchor
    for table, row, state in (
        (schema.issuances, issuance, IssuanceState.MINTING),
        (schema.issuances, issuance, IssuanceState.REVOKING),
        (schema.anchors, anchor, AnchorState.CREATING),
        (schema.anchors, anchor, AnchorState.REVOKING),
    ):
        with tables.changed(table, row, state=state):
            assert only(books).endswith(f"{row} is {state.value}")
            books.settle = timedelta(hours=1)
            assert books.mismatches() == [], "it may yet go on"
            books.settle = timedelta()
    with tables.changed(schema.tasks, day.task, ended_at=now):
        assert only(books) == f"not confirmed: the end of task {day.task}"
    pending = a_revocation(a_task(id=day.task), accessor=day.token("reports-db").accessor, requested_at=now)
    tables.insert(schema.revocations, **{name: getattr(pending, name) for name in pending.__slots__})
    assert only(books).startswith(f"not confirmed: the revocation of {pending.accessor}")
