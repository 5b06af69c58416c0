"""Admins take back what is out: exactly what they select, and nothing is refused afterwards."""

from dataclasses import dataclass
from datetime import timedelta

import hvac.exceptions
import psycopg
import pytest
from credbroker.v1 import (
    credential_service_pb2,
    issuance_pb2,
    lock_pb2,
    lock_service_pb2,
    revocation_service_pb2,
    scope_service_pb2,
    task_service_pb2,
)
from credbroker.v1.revocation_pb2 import RevocationSelector, ScopeSelector

from broker.dev.postgres import Postgres
from broker.ids import new_id
from tests.fixtures.openbao import read_secret
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, SECRET, SECRET_SCOPE, Caller, World
from tests.integration.refusing import refused

REVOKED = issuance_pb2.ISSUANCE_STATE_REVOKED


async def _waiting(world: World, wait: timedelta) -> World:
    limits = world.settings.limits.model_copy(update={"revocation_wait": wait})
    world.settings = world.settings.model_copy(update={"limits": limits})
    await world.start()
    await world.apply(*SCOPES)
    return world


@pytest.fixture
async def patient(bare_world: World) -> World:
    """A world whose broker waits for Vault's confirmation, however slow the machine."""
    return await _waiting(bare_world, timedelta(seconds=15))


@pytest.fixture
async def impatient(bare_world: World) -> World:
    """A world whose broker soon says what is pending."""
    return await _waiting(bare_world, timedelta(milliseconds=200))


@dataclass(frozen=True)
class Held:
    """One credential as its holder has it."""

    name: str
    id: str
    task_id: str
    credential: credential_service_pb2.Credential

    def works(self, world: World, postgres: Postgres) -> bool:
        """Whether Vault, or the database, still takes it."""
        if self.credential.HasField("vault_token"):
            try:
                return read_secret(world.vault(self.credential.vault_token.token), "reports/api") == SECRET
            except hvac.exceptions.Forbidden:
                return False
        with psycopg.connect(postgres.dsn()) as connection:
            name = str(self.credential.leased.data["username"])
            return bool(connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchall())


async def _hold(agent: Caller, name: str, scope: str, task_id: str | None = None) -> Held:
    parameters = {"role": "readonly"} if scope == "reports-db" else {}
    issued = await agent.issue(scope, task_id=task_id, parameters=parameters)
    return Held(name, issued.credential.issuance_id, issued.task.id, issued.credential)


async def _everything(world: World) -> list[Held]:
    """Two agents; one with two tasks; each kind of credential; two of the batch kind in one task."""
    agent, other = world.caller(), world.caller("agents/other")
    first = await _hold(agent, "batch", "reports-secret")
    held = [first, await _hold(agent, "batch sibling", "reports-secret", first.task_id)]
    held.append(await _hold(agent, "service", "reports-service", first.task_id))
    held.append(await _hold(agent, "service sibling", "reports-service", first.task_id))
    held.append(await _hold(agent, "leased", "reports-db", first.task_id))
    held.append(await _hold(agent, "second task", "reports-secret"))
    held.append(await _hold(other, "other agent", "reports-secret"))
    return held


async def _revoke(
    world: World, selector: RevocationSelector, *, validate_only: bool = False
) -> revocation_service_pb2.RevokeIssuancesResponse:
    request = revocation_service_pb2.RevokeIssuancesRequest(
        selector=selector, reason="it is a test", validate_only=validate_only
    )
    reply: revocation_service_pb2.RevokeIssuancesResponse = await world.caller(
        "admins/root"
    ).revocations.RevokeIssuances(request)
    return reply


def _select(world: World, by: str, held: dict[str, Held]) -> RevocationSelector:
    match by:
        case "agent":
            return RevocationSelector(agent=f"{world.issuer.url}#agents/reports")
        case "scope":
            return RevocationSelector(scope=ScopeSelector(name="reports-secret"))
        case "task":
            return RevocationSelector(task_id=held["batch"].task_id)
    return RevocationSelector(issuance_id=held[by].id)


ALL = {"batch", "batch sibling", "service", "service sibling", "leased", "second task", "other agent"}


@pytest.mark.parametrize(
    ("by", "gone", "siblings"),
    [
        ("agent", ALL - {"other agent"}, 0),
        ("scope", {"batch", "batch sibling", "second task", "other agent"}, 0),
        ("task", ALL - {"second task", "other agent"}, 0),
        ("batch", {"batch", "batch sibling"}, 1),
        ("service", {"service"}, 0),
        ("leased", {"leased"}, 0),
    ],
)
async def test_exactly_what_is_selected_is_taken_back(
    world: World, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, by: str, gone: set[str], siblings: int
) -> None:
    monkeypatch.setattr("broker.takeback.CHUNK", 2)
    held = {one.name: one for one in await _everything(world)}
    selector = _select(world, by, held)
    counted = await _revoke(world, selector, validate_only=True)
    assert {one.name for one in held.values() if one.works(world, postgres)} == ALL

    done = await _revoke(world, selector)

    assert (counted.revoked_issuances, counted.sibling_issuances) == (len(gone) - siblings, siblings)
    assert (done.revoked_issuances, done.sibling_issuances) == (len(gone) - siblings, siblings)
    assert done.confirmed_issuances + done.pending_issuances == len(gone)
    await until(lambda: {one.name for one in held.values() if not one.works(world, postgres)} == gone)

    async def recorded() -> bool:
        return {one.id for one in await world.issuances("state = REVOKED")} == {held[name].id for name in gone}

    await until(recorded)
    again = await _revoke(world, selector)
    assert (again.revoked_issuances, again.sibling_issuances, again.earlier_issuances) == (0, 0, 0)


async def test_the_record_says_who_and_why(patient: World) -> None:
    held = await _hold(patient.caller(), "one", "reports-secret")

    done = await _revoke(patient, RevocationSelector(task_id=held.task_id))

    assert (done.confirmed_issuances, done.pending_issuances) == (1, 0)
    issuance, events = await patient.record_of(held.id)
    assert (issuance.state, issuance.end_reason) == (REVOKED, f"revocation {done.id}")
    (requested,) = [event for event in events if event.type == "credential.revocation_requested"]
    assert requested.actor == f"{patient.issuer.url}#admins/root"
    (ordered,) = await patient.events('type = "revocation.ordered"')
    assert ordered.actor == requested.actor
    facts = dict(ordered.attributes)
    assert (facts["revocation_id"], facts["reason"], facts["task_id"]) == (done.id, "it is a test", held.task_id)
    assert (facts["matching"], facts["siblings"], facts["expiring"]) == (1, 0, 0)
    assert dict(requested.attributes)["revocation_id"] == done.id


async def test_nothing_is_refused_afterwards(world: World, postgres: Postgres) -> None:
    agent = world.caller()
    before = await _hold(agent, "before", "reports-secret")
    await _revoke(world, RevocationSelector(agent=f"{world.issuer.url}#agents/reports"))
    await until(lambda: not before.works(world, postgres))

    in_the_same_task = await _hold(agent, "after", "reports-secret", before.task_id)
    in_another = await _hold(agent, "after", "reports-db")

    assert in_the_same_task.works(world, postgres)
    assert in_another.works(world, postgres)
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=before.task_id))
    await until(lambda: not in_the_same_task.works(world, postgres))


async def test_one_version_of_a_scope(world: World, postgres: Postgres) -> None:
    agent, admin = world.caller(), world.caller("admins/root")
    old = await _hold(agent, "old", "reports-secret")
    scope = (await admin.scopes.GetScope(scope_service_pb2.GetScopeRequest(name="reports-secret"))).scope
    document = SECRET_SCOPE.replace("ISSUER", world.issuer.url).replace("API key", "API key, again")
    await admin.scopes.UpdateScope(scope_service_pb2.UpdateScopeRequest(document=document, etag=scope.etag))
    new = await _hold(agent, "new", "reports-secret")
    sibling = await _hold(agent, "of the new version, under the old one's anchor", "reports-secret", old.task_id)

    done = await _revoke(world, RevocationSelector(scope=ScopeSelector(name="reports-secret", version=1)))

    assert (done.revoked_issuances, done.sibling_issuances) == (1, 1)
    await until(lambda: not old.works(world, postgres))
    assert not sibling.works(world, postgres)
    assert new.works(world, postgres)


async def test_what_matches_nothing_revokes_nothing_and_says_no_more(world: World, postgres: Postgres) -> None:
    held = await _hold(world.caller(), "one", "reports-secret")
    for selector in (
        RevocationSelector(agent="spiffe://nowhere.test/agent"),
        RevocationSelector(scope=ScopeSelector(name="no-such-scope")),
        RevocationSelector(scope=ScopeSelector(name="reports-secret", version=7)),
        RevocationSelector(task_id=new_id()),
        RevocationSelector(issuance_id=new_id()),
    ):
        done = await _revoke(world, selector)
        done.id = ""
        assert done == revocation_service_pb2.RevokeIssuancesResponse()
    assert held.works(world, postgres)
    assert len(await world.events('type = "revocation.ordered"')) == 5


@pytest.mark.parametrize("subject", ["agents/reports", "auditors/one"])
async def test_only_admins_take_back(world: World, postgres: Postgres, subject: str) -> None:
    held = await _hold(world.caller(), "one", "reports-secret")
    request = revocation_service_pb2.RevokeIssuancesRequest(
        selector=RevocationSelector(issuance_id=held.id), reason="mine"
    )
    for request.validate_only in (True, False):
        answer = await refused(world.caller(subject).revocations.RevokeIssuances(request))
        assert answer.reason == "ROLE_REQUIRED"
    assert held.works(world, postgres)


async def test_what_vault_does_not_confirm_is_pending_until_it_does(impatient: World, postgres: Postgres) -> None:
    world = impatient
    held = await _hold(world.caller(), "one", "reports-secret")
    world.proxy.fail("revoke-accessor", "refuse_before", times=1000)

    done = await _revoke(world, RevocationSelector(issuance_id=held.id))

    assert (done.revoked_issuances, done.confirmed_issuances, done.pending_issuances) == (1, 0, 1)
    again = await _revoke(world, RevocationSelector(issuance_id=held.id))
    assert (again.revoked_issuances, again.earlier_issuances) == (0, 1)
    world.proxy.heal()
    await until(lambda: not held.works(world, postgres))


async def _lock(world: World, task_id: str) -> lock_service_pb2.CreateLockResponse:
    request = lock_service_pb2.CreateLockRequest(target=lock_pb2.LockTarget(task_id=task_id), reason="a test")
    reply: lock_service_pb2.CreateLockResponse = await world.caller("admins/root").locks.CreateLock(request)
    return reply


async def test_a_lock_says_what_vault_has_confirmed(patient: World) -> None:
    agent = patient.caller()
    held = await _hold(agent, "one", "reports-secret")
    await _hold(agent, "two", "reports-secret", held.task_id)

    made = await _lock(patient, held.task_id)

    assert (made.ended_tasks, made.revoked_issuances) == (1, 2)
    assert (made.confirmed_issuances, made.pending_issuances) == (2, 0)


async def test_a_lock_says_what_is_pending(impatient: World) -> None:
    held = await _hold(impatient.caller(), "one", "reports-secret")
    impatient.proxy.fail("revoke-accessor", "refuse_before", times=1000)

    made = await _lock(impatient, held.task_id)

    assert (made.revoked_issuances, made.confirmed_issuances, made.pending_issuances) == (1, 0, 1)
