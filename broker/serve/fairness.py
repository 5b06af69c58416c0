"""Whose turn it is: a bounded number of requests run, and identities take turns for the next place.

What one identity asks for beyond that waits in a line of its own, so that it
delays nobody else.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Final

from broker import deadline
from broker.errors import Overloaded

RETRY_AFTER: Final = timedelta(seconds=1)


class Place:
    """One request's place, to be left when it has ended. Given by `FairQueue.admit`."""

    def __init__(self, queue: "FairQueue", identity: str) -> None:
        self.identity = identity
        self.turn: asyncio.Future[None] | None = None
        self.waits = True
        self.runs = False
        self._queue = queue

    def __enter__(self) -> "Place":
        """Return the place."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave: whoever's turn it is next runs."""
        self._queue.leave(self)

    async def wait_for_turn(self) -> None:
        """Return when the request may run.

        Raises:
            Overloaded: when its deadline passes before that, or others need
                the room more.
        """
        await self._queue.wait(self)


class FairQueue:
    """Lets so many requests run; the others wait in line by identity, and the identities take turns.

    When there is no room to wait either, the last in the longest line gives way
    to an identity with a shorter one.

    Args:
        running: Most requests that run at once.
        waiting: Most that are admitted and do not run yet.
        waiting_per_identity: Most of those that are of one identity.
    """

    def __init__(self, *, running: int, waiting: int, waiting_per_identity: int) -> None:
        self._most_running = running
        self._most_waiting = waiting
        self._most_of_one = waiting_per_identity
        self._running = 0
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        # The lines in the order of their turns, each in the order of arrival.
        self._lines: dict[str, dict[Place, None]] = {}

    @property
    def running(self) -> int:
        """How many requests run."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many are admitted and do not run yet."""
        return self._waiting

    def admit(self, identity: str) -> Place:
        """Let a request in. What it still has to do before it can run counts as waiting.

        Raises:
            Overloaded: when too many wait already, of this identity or in all.
        """
        if self._waiting_of[identity] >= self._most_of_one:
            raise Overloaded(f"{self._most_of_one} requests of {identity} wait already", retry_after=RETRY_AFTER)
        if self._waiting >= self._most_waiting:
            self._make_room(identity)
        self._waiting += 1
        self._waiting_of[identity] += 1
        return Place(self, identity)

    async def wait(self, place: Place) -> None:
        """Return when an admitted request may run.

        Raises:
            Overloaded: when its deadline passes before that, or others need
                the room more.
        """
        if self._running < self._most_running:
            self._run(place)
            return
        place.turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(place.identity, {})[place] = None
        try:
            async with asyncio.timeout(deadline.remaining()):
                await place.turn
        except TimeoutError:
            raise Overloaded("no turn came before the deadline", retry_after=RETRY_AFTER) from None

    def leave(self, place: Place) -> None:
        """Take a request out, whether it runs, waits, or did not wait yet."""
        if place.runs:
            place.runs = False
            self._running -= 1
            self._pass_on()
            return
        self._end_waiting(place)

    def _pass_on(self) -> None:
        """Let the first of the line whose turn it is run, and that line be the last."""
        if not self._lines:
            return
        identity = next(iter(self._lines))
        line = self._lines.pop(identity)
        self._lines[identity] = line
        self._run(next(iter(line)))

    def _make_room(self, identity: str) -> None:
        longest = max(self._lines.values(), key=len, default={})
        if len(longest) <= self._waiting_of[identity] + 1:
            raise Overloaded(f"{self._most_waiting} requests wait already", retry_after=RETRY_AFTER)
        last = next(reversed(longest))
        self._end_waiting(last)
        if last.turn is not None and not last.turn.done():
            last.turn.set_exception(Overloaded("others with shorter lines wait too", retry_after=RETRY_AFTER))

    def _run(self, place: Place) -> None:
        self._end_waiting(place)
        place.runs = True
        self._running += 1
        if place.turn is not None and not place.turn.done():
            place.turn.set_result(None)

    def _end_waiting(self, place: Place) -> None:
        if not place.waits:
            return
        place.waits = False
        self._waiting -= 1
        self._waiting_of[place.identity] -= 1
        if not self._waiting_of[place.identity]:
            del self._waiting_of[place.identity]
        line = self._lines.get(place.identity, {})
        line.pop(place, None)
        if not line:
            self._lines.pop(place.identity, None)
