"""A task and the asks made for it: the part that is neither blocking nor asynchronous."""

import logging
import uuid
from datetime import datetime
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message

from credbroker._broker import Broker, Reply
from credbroker._errors import Error, NotRevocable, RequestIdReused, TaskEnded, TaskNotFound
from credbroker._io import (
    COMPLETE_TASK,
    HEARTBEAT_TASK,
    ISSUE_CREDENTIAL,
    REVOKE_CREDENTIAL,
    START_TASK,
    Method,
    Pause,
    Worker,
)
from credbroker._issued import Issued, read_issued
from credbroker._requests import Ask
from credbroker._retry import Attempts
from credbroker._wire import to_time
from credbroker.v1 import credential_service_pb2 as credentials
from credbroker.v1 import task_pb2
from credbroker.v1 import task_service_pb2 as tasks

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_log = logging.getLogger("credbroker")

# How often one ask may be granted and its reply lost before it is given up.
MAX_LOST_REPLIES = 3


class TaskCore:
    """One task: started once, asked for credentials, completed once.

    ``doubts`` are asks that failed without an answer: the broker may have
    granted them. Asking the same again uses the same request id, so that a
    lost credential is noticed and taken back instead of becoming a second one.
    """

    def __init__(self, broker: Broker, spec: task_pb2.TaskSpec) -> None:
        self.broker = broker
        self.spec = spec
        self.id: str | None = None
        self.deadline: datetime | None = None
        self.revocation_confirmed = False
        self._why_ended: str | None = None
        self._closed = False
        self._completed = False
        self._start_id = str(uuid.uuid4())
        self._starting = broker.io.gate()
        self._doubts: dict[bytes, tuple[str, Ask]] = {}
        self._heart: Worker | None = None

    @property
    def ended(self) -> bool:
        """Whether the task is known to be over."""
        return self._why_ended is not None or self._closed

    def require_open(self) -> None:
        """Check that the task is not known to be over.

        Raises:
            TaskEnded: when it is.
        """
        if self._why_ended is not None:
            raise TaskEnded(self._why_ended)
        if self._closed:
            raise TaskEnded("the task was completed", reason="")

    async def start(self) -> None:
        """Start the task, unless it has started.

        Raises:
            Error: when it cannot be started.
        """
        async with self._starting:
            self.require_open()
            await self._settle()
            if self.id is None:
                request = tasks.StartTaskRequest(request_id=self._start_id, spec=self.spec)
                reply = await self.invoke(START_TASK, request)
                self._note(reply.message.task)

    async def issue(self, ask: Ask, patience: float | None = None) -> Issued:
        """Get a credential within ``patience`` seconds; the first one starts the task in the same call.

        Raises:
            Error: when it cannot be had.
        """
        self.require_open()
        if self.id is None:
            async with self._starting:
                self.require_open()
                if self.id is None:
                    if ask.key not in self._doubts:
                        await self._settle()
                    return await self._issue(ask, patience)
        return await self._issue(ask, patience)

    async def complete(self) -> None:
        """Complete the task; what was never started needs no call.

        Raises:
            Error: when the broker did not confirm. The task can be completed
                again; it ends at its deadline in any case.
        """
        self._closed = True
        async with self._starting:
            if self._heart is not None:
                await self._heart.stop()
            await self._settle()
            if self.id is None or self._completed or self._why_ended is not None:
                return
            reply = await self.invoke(COMPLETE_TASK, tasks.CompleteTaskRequest(id=self.id))
            self._completed = True
            self._note(reply.message.task)

    async def invoke(self, method: Method[Q, R], request: Q, attempts: Attempts | None = None) -> Reply[R]:
        """Make a call for this task, noticing when the broker says it is over."""
        try:
            return await self.broker.invoke(method, request, attempts or self.broker.attempts())
        except (TaskEnded, TaskNotFound) as error:
            if not self._closed:
                self._why_ended = self._why_ended or error.message
            raise

    async def _issue(self, ask: Ask, patience: float | None) -> Issued:
        attempts = self.broker.attempts(patience)
        rounds = 0
        while True:
            try:
                return await self._try(ask, attempts)
            except RequestIdReused as lost:
                await self._take_back(lost)
                rounds += 1
                if rounds == MAX_LOST_REPLIES:
                    raise

    async def _try(self, ask: Ask, attempts: Attempts) -> Issued:
        """Ask under one request id."""
        request_id, _ = self._doubts.pop(ask.key, (str(uuid.uuid4()), ask))
        request = credentials.IssueCredentialRequest(request_id=request_id)
        request.MergeFrom(ask.template)
        if self.id is None:
            request.new_task.CopyFrom(self.spec)
        else:
            request.task_id = self.id
        try:
            reply = await self.invoke(ISSUE_CREDENTIAL, request, attempts)
        except RequestIdReused:
            raise
        except BaseException as error:
            if isinstance(error, Error) and error.metadata.get("task_id"):
                self._begin(error.metadata["task_id"])
            if attempts.doubtful:
                self._doubts[ask.key] = (request_id, ask)
            raise
        self._note(reply.message.task)
        return read_issued(reply.message.credential, request.scope, reply.sent, self.broker.io.clock)

    async def _settle(self) -> None:
        """Find out whether an unanswered ask has started the task, and give back what it got.

        Raises:
            Error: when there is still no answer.
        """
        if self.id is not None:
            return
        attempts = self.broker.attempts(self.broker.policy.timeout)
        for key, (_, ask) in list(self._doubts.items()):
            try:
                issued = await self._try(ask, attempts)
            except RequestIdReused as lost:
                await self._take_back(lost)
            except Error:
                if key in self._doubts:
                    raise
            else:
                await self._discard(issued.issuance_id)

    async def _take_back(self, lost: RequestIdReused) -> None:
        """Adopt the task and revoke the credential of a granted ask whose reply was lost."""
        task_id, issuance_id = lost.metadata.get("task_id"), lost.metadata.get("issuance_id")
        if self.id is None and task_id:
            self._begin(task_id)
        if issuance_id:
            await self._discard(issuance_id)

    async def _discard(self, issuance_id: str) -> None:
        request = credentials.RevokeCredentialRequest(issuance_id=issuance_id)
        try:
            await self.broker.invoke(REVOKE_CREDENTIAL, request, self.broker.attempts(self.broker.policy.timeout))
        except NotRevocable:
            _log.info("a credential whose reply was lost ends with its task: %s", issuance_id)
        except Error as error:
            _log.warning("could not revoke credential %s, whose reply was lost: %s", issuance_id, error)

    def _note(self, task: task_pb2.Task) -> None:
        self.deadline = to_time(task.deadline)
        self.revocation_confirmed = task.revocation == task_pb2.REVOCATION_STATE_CONFIRMED
        self._begin(task.id)

    def _begin(self, task_id: str) -> None:
        self.id = task_id
        if self._heart is None and self.spec.HasField("heartbeat_interval") and not self._closed:
            self._heart = self.broker.io.spawn(partial(self._beat, task_id), f"credbroker heartbeat {task_id}")

    async def _beat(self, task_id: str, pause: Pause) -> None:
        """Send heartbeats until told to stop, or until the task is over."""
        every = self.spec.heartbeat_interval.ToTimedelta().total_seconds() / 3
        request = tasks.HeartbeatTaskRequest(id=task_id)
        while not (await pause(every) or self.broker.io.closed()):
            try:
                await self.invoke(HEARTBEAT_TASK, request, self.broker.attempts(every))
            except (TaskEnded, TaskNotFound) as error:
                if not self._closed:
                    _log.warning("task %s has ended: %s", task_id, error.message)
                return
            except Exception as error:
                if self.broker.io.closed():
                    return
                # A foreign exception comes from the token callable, and its text may hold anything.
                text = str(error) if isinstance(error, Error) else type(error).__name__
                _log.warning("heartbeat of task %s failed: %s", task_id, text)
