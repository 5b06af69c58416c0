"""A simulated day: agents work, operators intervene, things break, time flies; afterwards the books must match."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import grpc
import hvac
import hvac.exceptions
from credbroker.v1 import (
    credential_service_pb2,
    lock_pb2,
    lock_service_pb2,
    revocation_pb2,
    revocation_service_pb2,
    task_pb2,
    task_service_pb2,
)
from google.protobuf.duration_pb2 import Duration

from tests.fixtures.books import Books
from tests.fixtures.world import Caller, World
from tests.integration.refusing import Refused
from tests.soak.replica import Replica
from tests.soak.schedule import Act, Command, Round
from tests.soak.trouble import Troubles

# What a broker may answer on such a day. Anything else, above all INTERNAL and
# UNKNOWN, is a mistake of its own.
EXPECTED: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_PARAMETERS: Final = {"reports-db": {"role": "readonly"}}
_EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
_BREATH_SECONDS = 0.2
_PATIENCE = 4
_SETTLE_SECONDS = 90
_STEP = timedelta(minutes=2)
# Longer than any task.
_AFTERWARDS = timedelta(hours=25)


@dataclass
class Open:
    """A task that an agent believes to be open, and what it holds there."""

    task_id: str
    agent: int
    held: list[str] = field(default_factory=list)


class Day:
    """One day.

    Args:
        world: Prepared; its own broker is not started.
        books: Of that world, from before anything was minted.
        replicas: The brokers, running and with scopes.
        troubles: What can go wrong.

    Attributes:
        seen: How often which deed had which outcome.
        wrong: Answers that no fault explains.
        half_revoked: How many tokens OpenBao was cut off from revoking.
        last: The last events.
    """

    def __init__(self, world: World, books: Books, replicas: Sequence[Replica], troubles: Troubles) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.half_revoked = 0
        self.last: deque[str] = deque(maxlen=150)
        self._world = world
        self._books = books
        self._replicas = replicas
        self._troubles = troubles
        self._open: list[Open] = []
        self._locks: list[str] = []
        self._channels: list[grpc.aio.Channel] = []
        self._ending: list[tuple[int, Callable[[], Any]]] = []
        self._begun_at = world.clock.now()

    async def run(self, rounds: Sequence[Round], checks: int = 3) -> None:
        """Live through the day, then let everything end.

        Args:
            rounds: What happens.
            checks: How often faults stop meanwhile until the books match.

        Raises:
            AssertionError: when they do not.
        """
        pause = max(1, len(rounds) // checks)
        async with self._connected():
            for number, current in enumerate(rounds):
                for fault in current.faults:
                    self._note(f"{fault.trouble} {fault}")
                    end = await self._troubles.begin(fault)
                    self._ending.append((number + fault.rounds, end))
                await asyncio.gather(*map(self._do, current.acts), *map(self._command, current.commands))
                await asyncio.sleep(_BREATH_SECONDS)
                self._pass(timedelta(minutes=current.minutes))
                await self._end_troubles(number + 1)
                if number % pause == pause - 1:
                    await self._settle()
            await self._settle()
            self._note("everybody goes home")
            self._pass(_AFTERWARDS)
            await self._settle()
            await self._books.none_alive()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        trusted = grpc.ssl_channel_credentials(self._world.authority.certificate_pem)
        async with AsyncExitStack() as opened:
            for replica in self._replicas:
                channel = grpc.aio.secure_channel(replica.address, trusted, _EAGER)
                self._channels.append(await opened.enter_async_context(channel))
            yield

    def _pass(self, time: timedelta) -> None:
        self._world.clock.offset += time
        self._troubles.set_clocks()

    async def _end_troubles(self, number: int) -> None:
        due = [end for at, end in self._ending if at <= number]
        self._ending = [(at, end) for at, end in self._ending if at > number]
        for end in due:
            await end()

    async def _settle(self) -> None:
        """Let every fault end, and time pass in small steps until the books match."""
        await self._end_troubles(1_000_000)
        await self._troubles.heal()
        self._note("faults have stopped")
        self._books.close()  # its connections may have been cut as well; it opens new ones
        found = ["nothing was compared"]
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while found:
                    self._pass(_STEP)
                    await asyncio.sleep(1)
                    await asyncio.to_thread(self._end_half_revoked)
                    found = await asyncio.to_thread(self._books.mismatches)
        except TimeoutError:
            raise AssertionError("the books do not match:\n" + "\n".join(found)) from None
        self._note("the books match")

    def _end_half_revoked(self) -> None:
        """Bring forward what OpenBao would do at a token's end, since its time does not fly with the day's.

        Sealed in the middle of a revocation, it is left with a token that
        nothing accepts, that no accessor revokes, and that it ends in time.
        """
        self._books.made.read()
        pending = self._books.records().pending
        for token in self._books.made.tokens.values():
            if token.accessor in pending and self._half_revoked(token.accessor):
                self._note(f"half revoked: {token}")
                self.half_revoked += 1
                self._world.admin.adapter.post("/v1/auth/token/revoke", json={"token": token.secret})

    def _half_revoked(self, accessor: str) -> bool:
        """Say whether OpenBao has marked a token as one that it is revoking, which is how a look-up shows that."""
        try:
            found = self._world.admin.adapter.post("/v1/auth/token/lookup-accessor", json={"accessor": accessor})
        except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest):
            return False
        return bool(found["data"]["num_uses"] < 0)

    async def _do(self, act: Act) -> None:
        caller = self._caller(f"agents/soak-{act.agent}", act.replica)
        own = [one for one in self._open if one.agent == act.agent]
        if not own and act.deed not in ("start", "issue"):
            return
        task = own[int(act.pick * len(own))] if own and act.deed != "start" else None
        what = f"agent {act.agent} on {act.replica}: {act.deed} {act.scope if act.deed in ('start', 'issue') else ''}"
        outcome = await self._outcome(what, self._deed(caller, act, task))
        self.seen[act.deed, outcome] += 1
        if task is not None and outcome in ("TASK_ENDED", "TASK_NOT_FOUND"):
            self._close(task)

    async def _deed(self, caller: Caller, act: Act, task: Open | None) -> None:
        if task is None or act.deed == "issue":
            await self._issue(caller, act, task)
        elif act.deed == "beat":
            await caller.tasks.HeartbeatTask(
                task_service_pb2.HeartbeatTaskRequest(id=task.task_id), timeout=act.patience
            )
        elif act.deed == "complete":
            self._close(task)
            await caller.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task.task_id), timeout=act.patience)
        elif task.held:
            issuance = task.held[int(act.pick * len(task.held))]
            if act.deed == "renew":
                await caller.credentials.RenewCredential(
                    credential_service_pb2.RenewCredentialRequest(issuance_id=issuance), timeout=act.patience
                )
            else:
                await caller.credentials.RevokeCredential(
                    credential_service_pb2.RevokeCredentialRequest(issuance_id=issuance), timeout=act.patience
                )

    async def _issue(self, caller: Caller, act: Act, task: Open | None) -> None:
        request = credential_service_pb2.IssueCredentialRequest(scope=act.scope)
        request.parameters.update(_PARAMETERS.get(act.scope, {}))
        if task is not None:
            request.task_id = task.task_id
        else:
            spec = task_pb2.TaskSpec(
                purpose="a day's work", labels={"env": "prod"}, timeout=Duration(seconds=60 * act.minutes)
            )
            if act.heartbeat:
                spec.heartbeat_interval.FromTimedelta(timedelta(minutes=act.heartbeat))
            request.new_task.CopyFrom(spec)
        reply = await caller.credentials.IssueCredential(request, timeout=act.patience)
        self._books.handed_out.add(reply.credential.issuance_id)
        if task is None:
            task = Open(reply.task.id, act.agent)
            self._open.append(task)
        task.held.append(reply.credential.issuance_id)

    def _close(self, task: Open) -> None:
        with contextlib.suppress(ValueError):
            self._open.remove(task)

    async def _command(self, command: Command) -> None:
        replica = next((number for number, one in enumerate(self._replicas) if one.runs), 0)
        caller = self._caller("admins/root", replica)
        what, _, whom = command.order.partition(" ")
        if what == "lock":
            await self._outcome(f"{command}", self._lock(caller, command, whom))
        elif what == "revoke":
            selector = self._selector(command, whom)
            request = revocation_service_pb2.RevokeIssuancesRequest(selector=selector, reason="the day says so")
            await self._outcome(f"{command}", caller.revocations.RevokeIssuances(request, timeout=_PATIENCE))
        elif self._locks:
            lock = lock_service_pb2.DeleteLockRequest(id=self._locks.pop(int(command.pick * len(self._locks))))
            await self._outcome("unlock", caller.locks.DeleteLock(lock, timeout=_PATIENCE))

    async def _lock(self, caller: Caller, command: Command, whom: str) -> None:
        request = lock_service_pb2.CreateLockRequest(target=self._target(command, whom), reason="the day says so")
        if command.minutes:
            request.ttl.FromTimedelta(timedelta(minutes=command.minutes))
        self._locks.append((await caller.locks.CreateLock(request, timeout=_PATIENCE)).lock.id)

    def _target(self, command: Command, whom: str) -> lock_pb2.LockTarget:
        if whom == "scope":
            return lock_pb2.LockTarget(scope=command.scope)
        if whom == "pattern":
            return lock_pb2.LockTarget(agent_pattern=self._uri(command.agent))
        if whom == "task" and self._open:
            return lock_pb2.LockTarget(task_id=self._some_task(command))
        return lock_pb2.LockTarget(agent=self._uri(command.agent))

    def _selector(self, command: Command, whom: str) -> revocation_pb2.RevocationSelector:
        if whom == "scope":
            return revocation_pb2.RevocationSelector(scope=revocation_pb2.ScopeSelector(name=command.scope))
        if whom == "task" and self._open:
            return revocation_pb2.RevocationSelector(task_id=self._some_task(command))
        return revocation_pb2.RevocationSelector(agent=self._uri(command.agent))

    def _uri(self, agent: int) -> str:
        return f"{self._world.issuer.url}#agents/soak-{agent}"

    def _some_task(self, command: Command) -> str:
        return self._open[int(command.pick * len(self._open))].task_id

    async def _outcome(self, what: str, deed: Any) -> str:
        """Return OK or the reason of the refusal, and write it down."""
        outcome = "OK"
        try:
            await deed
        except grpc.aio.AioRpcError as error:
            refused = Refused(error)
            outcome = refused.reason or refused.code.name
            if refused.code not in EXPECTED:
                self.wrong.append(f"{what}: {refused.code.name} {refused.text}")
        self._note(f"{what}: {outcome}")
        return outcome

    def _caller(self, subject: str, replica: int) -> Caller:
        now = self._world.clock.now()
        claims = {"iat": int(now.timestamp()), "exp": int((now + timedelta(minutes=10)).timestamp())}
        return Caller(self._channels[replica], self._world.issuer.token(subject, claims=claims).reveal())

    def _note(self, text: str) -> None:
        at: datetime = self._world.clock.now()
        self.last.append(f"{at - self._begun_at} {text}")
