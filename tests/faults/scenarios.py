"""What a broker goes through until it is killed. Together the scenarios pass every step of every workflow."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import grpc
from credbroker.v1 import (
    credential_service_pb2,
    lock_pb2,
    lock_service_pb2,
    revocation_pb2,
    revocation_service_pb2,
    task_pb2,
    task_service_pb2,
)

from broker.app import App
from broker.step import Step, observe
from tests.fixtures.world import SECRET_SCOPE, Caller

LIMITED_SCOPE = SECRET_SCOPE.replace("reports-secret", "reports-limited") + "  limits: {livePerTask: 5}\n"
UNPROVISIONED_SCOPE = SECRET_SCOPE.replace("reports-secret", "reports-nowhere")


class Play:
    """Who acts. What the agent was handed out is noted at once: it knows that even when the broker is dead."""

    def __init__(self, app: App, agent: Caller, admin: Caller, notes: Path) -> None:
        self.app = app
        self.agent = agent
        self.admin = admin
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    async def start(self) -> task_pb2.Task:
        spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
        reply: task_service_pb2.StartTaskResponse
        reply = await self.agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))
        return reply.task

    async def issue(self, scope: str, task: str | None = None, **parameters: str) -> tuple[str, str]:
        """Issue a credential; return the task and the issuance."""
        issued = await self.agent.issue(scope, task_id=task, parameters=parameters)
        os.write(self._notes, f"{issued.credential.issuance_id}\n".encode())
        return issued.task.id, issued.credential.issuance_id

    async def in_vain(self, scope: str, task: str | None = None, **parameters: str) -> None:
        """Ask for a credential that cannot be had."""
        try:
            await self.issue(scope, task, **parameters)
        except grpc.aio.AioRpcError:
            return
        raise AssertionError("it was issued")

    async def give_back(self, issuance: str) -> None:
        request = credential_service_pb2.RevokeCredentialRequest(issuance_id=issuance)
        await self.agent.credentials.RevokeCredential(request)

    async def complete(self, task: str) -> None:
        await self.agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task))


async def all_goes_well(play: Play) -> None:
    """Everything that an agent can do, in two tasks."""
    task = (await play.start()).id
    await play.agent.tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=task))
    await play.issue("reports-limited", task)
    _, service = await play.issue("reports-service", task)
    _, leased = await play.issue("reports-db", task, role="readonly")
    for issuance in (service, leased):
        request = credential_service_pb2.RenewCredentialRequest(issuance_id=issuance)
        await play.agent.credentials.RenewCredential(request)
    await play.give_back(service)
    another, _ = await play.issue("reports-secret")
    await play.complete(another)
    await play.complete(task)


async def agents_are_locked(play: Play) -> None:
    task = await play.start()
    await play.issue("reports-secret", task.id)
    await play.issue("reports-service", task.id)
    target = lock_pb2.LockTarget(agent_pattern=task.agent.replace("reports", "*"))
    await play.admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))


async def a_scope_is_locked(play: Play) -> None:
    await play.issue("reports-service")
    target = lock_pb2.LockTarget(scope="reports-service")
    made = await play.admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))
    await play.admin.locks.DeleteLock(lock_service_pb2.DeleteLockRequest(id=made.lock.id))


async def an_admin_revokes(play: Play) -> None:
    """One version of a scope, after a look at how much that is."""
    task, _ = await play.issue("reports-secret")
    await play.issue("reports-service", task)
    scope = revocation_pb2.ScopeSelector(name="reports-secret", version=1)
    selector = revocation_pb2.RevocationSelector(scope=scope)
    for only_count in (True, False):
        await play.admin.revocations.RevokeIssuances(
            revocation_service_pb2.RevokeIssuancesRequest(selector=selector, reason="a test", validate_only=only_count)
        )


async def the_engine_refuses(play: Play) -> None:
    await play.in_vain("reports-db", role="broken")


async def no_role_in_vault(play: Play) -> None:
    await play.in_vain("reports-nowhere")


async def a_service_token_goes_wrong(play: Play) -> None:
    """Ask for one; what is in the way, the test decides."""
    await play.in_vain("reports-service")


async def a_batch_token_goes_wrong(play: Play) -> None:
    await play.in_vain("reports-secret")


async def a_lease_goes_wrong(play: Play) -> None:
    await play.in_vain("reports-db", role="readonly")


async def the_anchor_was_revoked(play: Play) -> None:
    await play.issue("reports-secret")


async def revoking_fails_at_first(play: Play) -> None:
    _, issuance = await play.issue("reports-service")
    confirmed = _passed(Step.OUTBOX_CONFIRM)
    await play.give_back(issuance)
    await confirmed


async def the_broker_stops(play: Play) -> None:
    """It is asked to, while it waits to try a revocation again."""
    _, issuance = await play.issue("reports-service")
    tried = _passed(Step.OUTBOX_RETRY)
    giving_back = asyncio.create_task(play.give_back(issuance))
    await tried
    giving_back.cancel()
    await play.app.stop()


async def the_caller_goes_away(play: Play) -> None:
    """The call is cancelled on both sides when the credential is about to be recorded."""
    asking = asyncio.create_task(play.issue("reports-service"))

    def watch(step: Step) -> AbstractContextManager[object]:
        if step is Step.ISSUE_DELIVER:
            asking.cancel()
            for task in asyncio.all_tasks():
                if task.get_name().startswith("HandleExceptions["):  # gRPC's own, of the call
                    task.cancel()
        return nullcontext()

    observe(watch)
    undone = _passed(Step.UNDO_QUEUE)
    await asyncio.wait([asking])
    await undone


def _passed(step: Step) -> Awaitable[bool]:
    """Wait for the end of a step that will be taken."""
    passed = asyncio.Event()

    @contextmanager
    def watch(taken: Step) -> Iterator[None]:
        yield
        if taken is step:
            passed.set()

    observe(watch)
    return asyncio.wait_for(passed.wait(), 10)


SCENARIOS: Final[Mapping[str, Callable[[Play], Awaitable[None]]]] = {
    scenario.__name__: scenario
    for scenario in (
        all_goes_well,
        agents_are_locked,
        a_scope_is_locked,
        an_admin_revokes,
        the_engine_refuses,
        no_role_in_vault,
        a_service_token_goes_wrong,
        a_batch_token_goes_wrong,
        a_lease_goes_wrong,
        the_anchor_was_revoked,
        revoking_fails_at_first,
        the_broker_stops,
        the_caller_goes_away,
    )
}
