"""Lanes: what takes back never waits behind what gives out.

Each lane has places and lines of its own. An agent that floods the broker with
requests for credentials delays neither the end of anybody's task nor an
admin's lock; and agents that end thousands of tasks do not delay that lock.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from broker import config
from broker.serve.fairness import FairQueue


class Lane(Enum):
    """What a request is about, as far as its urgency goes."""

    SERVE = "serve"
    TAKE_BACK = "take_back"
    STOP = "stop"


_LANES: Final[Mapping[str, Lane]] = MappingProxyType(
    {
        "credbroker.v1.TaskService/CompleteTask": Lane.TAKE_BACK,
        "credbroker.v1.CredentialService/RevokeCredential": Lane.TAKE_BACK,
        "credbroker.v1.LockService/CreateLock": Lane.STOP,
        "credbroker.v1.RevocationService/RevokeIssuances": Lane.STOP,
    }
)


def lane_of(method: str) -> Lane:
    """Return the lane of an RPC."""
    return _LANES.get(method, Lane.SERVE)


class Lanes:
    """The queues of all lanes, sized so that together they never fill the gate before them.

    Whoever is not identified yet finds room there even when every lane is full.
    """

    def __init__(self, limits: config.Limits) -> None:
        room = limits.max_concurrent_requests
        places = max(1, min(limits.max_running, room // 6))
        sizes = {
            Lane.SERVE: (places, room // 3),
            Lane.TAKE_BACK: (places, room // 8),
            Lane.STOP: (max(1, places // 8), room // 16),
        }
        self._queues = {
            lane: FairQueue(
                running=running, waiting=max(1, waiting), waiting_per_identity=limits.max_waiting_per_identity
            )
            for lane, (running, waiting) in sizes.items()
        }

    def of(self, method: str) -> FairQueue:
        """Return the queue that an RPC goes through."""
        return self._queues[lane_of(method)]

    def __getitem__(self, lane: Lane) -> FairQueue:
        """Return the queue of a lane."""
        return self._queues[lane]
