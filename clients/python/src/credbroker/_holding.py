"""Keeping a credential fresh."""

import logging
import math
from datetime import timedelta

from credbroker._errors import (
    AlreadyExists,
    CredentialEnded,
    CredentialExpired,
    CredentialNotFound,
    Error,
    InvalidRequest,
    NotFound,
    NotRenewable,
    PermissionDenied,
    TaskEnded,
)
from credbroker._io import RENEW_CREDENTIAL, REVOKE_CREDENTIAL
from credbroker._issued import Issued, term
from credbroker._requests import Ask
from credbroker._settings import seconds
from credbroker._task import TaskCore
from credbroker._wire import to_duration, to_time
from credbroker.v1 import credential_service_pb2 as credentials

_log = logging.getLogger("credbroker")

# Answers about the agent's right, the ask or the task: a credential at hand is
# no reason to go on. Everything else is bad luck, which it bridges.
_REFUSALS = (PermissionDenied, InvalidRequest, NotFound, TaskEnded, AlreadyExists)
_MOMENT = timedelta(seconds=1)


class Holding:
    """What one ask has got so far: the newest credential, and the way to the next."""

    def __init__(self, task: TaskCore, ask: Ask, issued: Issued) -> None:
        self._task = task
        self._ask = ask
        self._current = issued
        self._io = task.broker.io
        self._gate = self._io.gate()
        self._not_before = -math.inf

    def left(self, issued: Issued) -> float:
        """Return how many seconds a credential has left; zero when it is over."""
        return max(0.0, issued.term.end - self._io.clock.monotonic())

    def check(self, issued: Issued) -> None:
        """Check that a credential can still be used, as far as is known here.

        Raises:
            CredentialExpired: when its time ran out.
            CredentialEnded: when it was revoked, or its task has ended.
        """
        if issued.revoked or issued.ended:
            raise CredentialEnded("this credential was revoked", reason="")
        if self._task.ended:
            raise CredentialEnded("the task of this credential has ended", reason="")
        if not self.left(issued):
            raise CredentialExpired(f"this credential expired at {issued.term.expires_at:%Y-%m-%d %H:%M:%S} UTC")

    async def fresh(self) -> Issued:
        """Return a credential with enough life: the one at hand, renewed, or a new one.

        While one caller replaces it, others get the one at hand as long as it
        lives. When replacing fails for want of an answer, so does the caller.

        Raises:
            Error: when there is none to be had.
        """
        if self._enough(self._current):
            return self._current
        if self._gate.busy() and self._usable(self._current):
            return self._current
        async with self._gate:
            if not self._enough(self._current):
                await self._replace()
            return self._current

    async def renew(self, issued: Issued, ttl: timedelta | None, patience: float | None = None) -> None:
        """Prolong a credential, within ``patience`` seconds.

        Raises:
            Error: when it cannot be prolonged.
        """
        self.check(issued)
        lasting = None if ttl is None else to_duration(seconds(ttl, "ttl"))
        request = credentials.RenewCredentialRequest(issuance_id=issued.issuance_id, ttl=lasting)
        try:
            reply = await self._task.invoke(RENEW_CREDENTIAL, request, self._task.broker.attempts(patience))
        except (CredentialEnded, CredentialNotFound):
            issued.ended = True
            raise
        record = reply.message.issuance
        began = to_time(record.renew_time) if record.HasField("renew_time") else None
        expires_at, max_expires_at = to_time(record.expire_time), to_time(record.max_expire_time)
        issued.term = term(reply.sent, began, expires_at, max_expires_at, self._io.clock)

    async def revoke(self, issued: Issued) -> None:
        """Take a credential back.

        Raises:
            Error: when it cannot be taken back by itself, or there was no answer.
        """
        if issued.revoked:
            return
        request = credentials.RevokeCredentialRequest(issuance_id=issued.issuance_id)
        await self._task.invoke(REVOKE_CREDENTIAL, request)
        issued.revoked = True

    def _enough(self, issued: Issued) -> bool:
        self._task.require_open()
        if issued.revoked:
            raise CredentialEnded("this credential was revoked", reason="")
        if not self._usable(issued):
            return False
        return self._io.clock.monotonic() < max(issued.term.refresh_at, self._not_before)

    def _usable(self, issued: Issued) -> bool:
        return self.left(issued) > 0 and not issued.ended

    async def _replace(self) -> None:
        current = self._current
        try:
            self._current = await self._next(current)
        except Exception as error:
            if isinstance(error, _REFUSALS) or self._io.closed() or not self._usable(current):
                raise
            left = self.left(current)
            # The rest of its life is shared out, so that a broker in trouble is not asked at every use.
            self._not_before = self._io.clock.monotonic() + left / 10
            text = str(error) if isinstance(error, Error) else type(error).__name__
            _log.warning("%s: could not replace the credential, %.0f s before its end: %s", current.scope, left, text)

    async def _next(self, current: Issued) -> Issued:
        if not self._usable(current):
            return await self._task.issue(self._ask)
        patience = self._task.broker.policy.timeout
        expires_at, deadline = current.term.expires_at, self._task.deadline
        if deadline is not None and expires_at >= deadline - _MOMENT:
            return current
        if current.renewable and expires_at < current.term.max_expires_at - _MOMENT:
            try:
                await self.renew(current, self._ask.ttl, patience)
            except (NotRenewable, CredentialEnded, CredentialNotFound) as error:
                _log.debug("%s: not renewed, hence issued anew: %s", current.scope, error)
            else:
                return current
        return await self._task.issue(self._ask, patience)
