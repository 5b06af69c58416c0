"""Calls that are tried until they are answered or their time is up."""

import logging
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from credbroker._errors import Error
from credbroker._io import Io, Method
from credbroker._retry import Attempts, Policy, is_doubtful

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_log = logging.getLogger("credbroker")


@dataclass(frozen=True, slots=True, repr=False)
class Reply(Generic[R]):
    """An answer, and when the attempt that it answers was sent (monotonic seconds)."""

    message: R
    sent: float


class Broker:
    """The broker, as far as this library calls it."""

    def __init__(self, io: Io, policy: Policy) -> None:
        self.io = io
        self.policy = policy

    def attempts(self, total: float | None = None) -> Attempts:
        """Return the attempts of an operation that starts now."""
        return Attempts(self.policy, self.io.clock.monotonic(), total=total)

    async def invoke(self, method: Method[Q, R], request: Q, attempts: Attempts) -> Reply[R]:
        """Make a call, again where that may help.

        Raises:
            Error: the last attempt's, when trying again cannot help or the
                time is up.
        """
        while True:
            # Asked for each attempt, since evidence may be good for one use only.
            bearer = await self.io.bearer()
            sent = self.io.clock.monotonic()
            try:
                return Reply(await self.io.call(method, request, bearer, attempts.timeout(sent)), sent)
            except BaseException as error:
                attempts.doubtful |= is_doubtful(error)
                pause = attempts.pause(error, self.io.clock.monotonic()) if isinstance(error, Error) else None
                if pause is None:
                    raise
                _log.info("%s: %s; trying again in %.1f s", method.name, error, pause)
            await self.io.sleep(pause)
