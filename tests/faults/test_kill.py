"""The process killed before and after every step of every workflow: nothing is lost, and the next start needs no hand.

A scenario is first played to its end, to learn which edges of steps it passes
(`tests.faults.edges`). Then for each moment a broker of its own plays it on an
empty database and is killed there with SIGKILL; another broker is started on
what that left behind, and must bring OpenBao's books and the records together
(`tests.fixtures.books`) and end what is still open.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from signal import SIGKILL
from typing import Any, Final

import pytest
from credbroker.v1 import lock_service_pb2, scope_service_pb2, task_service_pb2
from sqlalchemy import NullPool, create_engine, delete

from broker.model import TaskState
from broker.step import Step
from broker.store import schema
from broker.sweep import ABANDONED
from tests.fakes.vault_proxy import Fault
from tests.faults.edges import Edge, Moment, moments
from tests.faults.scenarios import LIMITED_SCOPE, UNPROVISIONED_SCOPE
from tests.faults.test_promises import failing
from tests.faults.zygote import EDGES, HANDED_OUT, LOG, Order, Zygote, running_zygote
from tests.fixtures.books import Books
from tests.fixtures.world import SCOPES, World

KEPT = (schema.scopes, schema.policy_revision, schema.installation, schema.events)
CHILD, REVOKE = "auth/token/create$", "revoke-accessor"
# These are also taken in the background: how often, depends on how long the rest takes.
RACING = {Step.LOCK_FIND, Step.LOCK_ENFORCE} | {one for one in Step if one.value.startswith("outbox.")}
# Longer than the broker waits before it compares again where Vault did not answer in time.
PATIENCE = 60


@contextmanager
def anchors_revoked(world: World) -> Iterator[None]:
    """Revoke the first anchor behind the broker's back, before the broker hears of it."""
    left = [1]

    def on_reply(path: str, body: dict[str, Any]) -> None:
        if "/token/create/" in path and left:
            left.pop()
            world.admin.auth.token.revoke_accessor(body["auth"]["accessor"])

    world.proxy.on_reply = on_reply
    yield
    world.proxy.on_reply = lambda path, body: None


@contextmanager
def vault_fails(world: World, path: str, fault: Fault, times: int = 1) -> Iterator[None]:
    world.proxy.fail(path, fault, times)
    yield
    world.proxy.heal()


def nothing_recorded_of(scope: str) -> Callable[[World], AbstractContextManager[None]]:
    return lambda world: failing(world.settings, "INSERT", "issuances", f"NEW.scope = '{scope}'")


@dataclass(frozen=True)
class Plot:
    """A scenario, what is in its way, and the edge before which all goes as in another plot."""

    scenario: str
    since: str = ""
    disturbance: Callable[[World], AbstractContextManager[None]] = lambda world: nullcontext()


PLOTS: Final[Mapping[str, Plot]] = {
    "all goes well": Plot("all_goes_well"),
    "agents are locked": Plot("agents_are_locked", "after issue.deliver #2"),
    "a scope is locked": Plot("a_scope_is_locked", "after issue.deliver #1"),
    "an admin revokes": Plot("an_admin_revokes", "after issue.deliver #2"),
    "the engine refuses": Plot("the_engine_refuses", "after issue.mint #1"),
    "the end of an intent cannot be recorded": Plot(
        "the_engine_refuses",
        "before issue.give_up #1",
        lambda world: failing(world.settings, "INSERT", "events", "NEW.type = 'credential.mint_failed'"),
    ),
    "no role in Vault": Plot("no_role_in_vault", "after anchor.create #1"),
    "an anchor cannot be adopted": Plot(
        "a_service_token_goes_wrong",
        "before anchor.adopt #1",
        lambda world: failing(world.settings, "UPDATE", "anchors", "NEW.state = 'active'"),
    ),
    "an anchor cannot be adopted with the first record": Plot(
        "a_batch_token_goes_wrong",
        "before issue.deliver #1",
        lambda world: failing(world.settings, "UPDATE", "anchors", "NEW.state = 'active'"),
    ),
    "a batch token is perhaps made": Plot(
        "a_batch_token_goes_wrong", "after issue.mint #1", lambda world: vault_fails(world, CHILD, "error_after")
    ),
    "a batch token cannot be recorded": Plot(
        "a_batch_token_goes_wrong", "before issue.deliver #1", nothing_recorded_of("reports-secret")
    ),
    "a service token cannot be recorded": Plot(
        "a_service_token_goes_wrong", "before issue.deliver #1", nothing_recorded_of("reports-service")
    ),
    "a holder cannot be recorded": Plot(
        "a_lease_goes_wrong", "before issue.intend #1", nothing_recorded_of("reports-db")
    ),
    "a service token is perhaps made": Plot(
        "a_service_token_goes_wrong", "after issue.mint #1", lambda world: vault_fails(world, CHILD, "error_after")
    ),
    "the anchor was revoked": Plot("the_anchor_was_revoked", "after anchor.create #1", anchors_revoked),
    "revoking fails at first": Plot(
        "revoking_fails_at_first", "after revoke.request #1", lambda world: vault_fails(world, REVOKE, "refuse_before")
    ),
    "the broker stops": Plot(
        "the_broker_stops",
        "after outbox.retry #1",
        lambda world: vault_fails(world, REVOKE, "refuse_before", times=1000),
    ),
    "the caller goes away": Plot("the_caller_goes_away", "before issue.deliver #1"),
}

# One moment of each workflow, for every day.
EVERY_DAY: Final = {
    "all goes well": (
        "after anchor.create #1",
        "after issue.mint #2",
        "after issue.mint #3",
        "after renew.prolong #2",
        "after revoke.request #1",
        "after task.complete #1",
    ),
    "a batch token cannot be recorded": ("after anchor.retract #1",),
}


class Killing:
    """Plays scenarios in a world, and looks at what is left of it."""

    def __init__(self, world: World, zygote: Zygote) -> None:
        self._world = world
        self._zygote = zygote
        self._agent, self._admin = (world.issuer.token(name).reveal() for name in ("agents/reports", "admins/root"))

    async def live(self, plot: str) -> list[Edge]:
        """Play to the end and return the edges that were passed; what is left must be in order then, too."""
        await self._play_and_recover(plot, None)
        return [Edge.from_json(line) for line in (self._world.folder / EDGES).read_text().splitlines()]

    async def kill(self, plot: str, at: Sequence[Moment]) -> None:
        """Kill a broker at each of some moments, and see that nothing is lost.

        Raises:
            AssertionError: when something is; names the moments.
        """
        assert at, "there is no such moment"
        failures = []
        for moment in at:
            try:
                status = await self._play_and_recover(plot, moment[-1])
                racing = not RACING.isdisjoint((moment[-1].step, moment[-1].inside))
                assert status == -SIGKILL or racing, "it was not killed: " + self._said()
            except AssertionError as failure:
                failures.append(f"killed while {plot}: {', '.join(map(str, moment))}:\n{failure}")
        assert not failures, "\n\n".join(failures)

    async def _play_and_recover(self, plot: str, edge: Edge | None) -> int:
        world = self._world
        world.clock.offset = timedelta()
        _forget(world)
        books = Books(world)
        try:
            with PLOTS[plot].disturbance(world):
                order = Order(world.folder, PLOTS[plot].scenario, self._agent, self._admin, edge)
                status = await self._zygote.run(order)
            books.handed_out |= set((world.folder / HANDED_OUT).read_text().split())
            assert status in (0, -SIGKILL), self._said()
            await self._recover(books)
        finally:
            books.close()
        return status

    async def _is_locked(self) -> bool:
        admin = self._world.caller(token=self._admin)
        locks = await admin.locks.ListLocks(lock_service_pb2.ListLocksRequest())
        await admin.channel.close()
        return bool(locks.locks)

    def _said(self) -> str:
        return (self._world.folder / LOG).read_text()

    async def _recover(self, books: Books) -> None:
        """Start a broker later, when what was half done counts as abandoned, and let it settle all by itself.

        Under a lock nothing may be left alive then; without one, what is recorded goes on until its task ends.
        """
        world = self._world
        world.clock.offset = ABANDONED + timedelta(seconds=30)
        await world.start()
        try:
            await books.match(PATIENCE)
            if await self._is_locked():
                await books.none_alive(PATIENCE)
            agent = world.caller(token=self._agent)
            for task in books.records().tasks.values():
                if task.state is TaskState.ACTIVE:
                    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task.id))
            await books.match(PATIENCE)
            await books.none_alive(PATIENCE)
            await agent.channel.close()
        finally:
            await world.app.stop()


def _forget(world: World) -> None:
    """Empty the database, but for the rules."""
    engine = create_engine(world.settings.database.url.get_secret_value(), poolclass=NullPool)
    with engine.begin() as conn:
        for table in reversed(schema.metadata.sorted_tables):
            if table not in KEPT:
                conn.execute(delete(table))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with running_zygote() as zygote:
        yield zygote


@pytest.fixture
async def killing(bare_world: World, zygote: Zygote) -> Killing:
    world = bare_world
    await world.start()
    await world.apply(*SCOPES, LIMITED_SCOPE)
    admin = world.caller("admins/root")
    document = UNPROVISIONED_SCOPE.replace("ISSUER", world.issuer.url)
    await admin.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(document=document))
    await world.app.stop()
    return Killing(world, zygote)


@pytest.mark.long
@pytest.mark.parametrize("plot", PLOTS)
async def test_killed_at_every_moment(killing: Killing, plot: str) -> None:
    lived = moments(await killing.live(plot))
    first = [n for n, moment in enumerate(lived) if not PLOTS[plot].since or PLOTS[plot].since in map(str, moment)]
    await killing.kill(plot, lived[first[0] :])


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
async def test_killed_in_the_middle_of_each_workflow(killing: Killing) -> None:
    for plot, edges in EVERY_DAY.items():
        lived = moments(await killing.live(plot))
        await killing.kill(plot, [moment for moment in lived if not set(edges).isdisjoint(map(str, moment))])


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_no_step_is_left_out(killing: Killing) -> None:
    passed = {edge.step for plot in PLOTS for edge in await killing.live(plot)}
    assert set(Step) - passed == set()
