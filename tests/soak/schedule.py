"""What happens on a simulated day: everything that is left to chance, drawn from one seed before the day begins."""

import hashlib
import random
from dataclasses import dataclass
from typing import Final, Literal

DAY_MINUTES: Final = 24 * 60
AGENTS: Final = 6

Deed = Literal["start", "issue", "renew", "revoke", "beat", "complete"]
Trouble = Literal[
    "vault errors",
    "vault drops",
    "vault hangs",
    "vault sealed",
    "database away",
    "database silent",
    "connections cut",
    "replica killed",
    "replica paused",
    "clock wrong",
]
Order = Literal[
    "lock agent", "lock pattern", "lock scope", "lock task", "unlock", "revoke agent", "revoke scope", "revoke task"
]

SCOPES: Final = ("reports-secret", "reports-service", "reports-db", "reports-limited", "payments-admin")
# The database engine takes the longest; the last one is always denied.
_SCOPE_WEIGHTS: Final = (6, 4, 4, 4, 1)
_DEEDS: Final[dict[Deed, int]] = {"start": 6, "issue": 6, "renew": 2, "revoke": 2, "beat": 5, "complete": 3}
_ORDERS: Final[dict[Order, int]] = {
    "lock agent": 2,
    "lock pattern": 1,
    "lock scope": 1,
    "lock task": 1,
    "unlock": 4,
    "revoke agent": 1,
    "revoke scope": 1,
    "revoke task": 1,
}
_ON_ONE: Final[tuple[Trouble, ...]] = ("replica killed", "replica paused", "clock wrong")
# With these, next to nothing else can be seen.
_SHORT: Final[tuple[Trouble, ...]] = ("replica killed", "database away", "database silent")
_PATHS: Final = ("auth/token/create", "revoke-accessor", "lookup-accessor", "creds/", "leases/", "")


@dataclass(frozen=True, slots=True)
class Act:
    """What an agent does.

    Attributes:
        agent: Which one.
        deed: What.
        replica: Whom it asks.
        scope: For what.
        pick: Which of its open tasks, as a share of all.
        minutes: How long a new task may take.
        heartbeat: Minutes between heartbeats of a new task; 0 for none.
        patience: Seconds until the agent gives up.
    """

    agent: int
    deed: Deed
    replica: int
    scope: str
    pick: float
    minutes: int
    heartbeat: int
    patience: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong from this round on.

    Attributes:
        trouble: What.
        replica: Where, if it concerns one replica.
        path: Which calls to Vault.
        times: How many of them; or by how many minutes a clock is wrong.
        rounds: How long.
    """

    trouble: Trouble
    replica: int
    path: str
    times: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator does; a lock ends by itself after some minutes, or never when they are 0."""

    order: Order
    agent: int
    scope: str
    pick: float
    minutes: int


@dataclass(frozen=True, slots=True)
class Round:
    """What happens at once, and how many minutes pass after it."""

    acts: tuple[Act, ...]
    faults: tuple[Fault, ...]
    commands: tuple[Command, ...]
    minutes: int


def make_schedule(seed: int, rounds: int, replicas: int, troubles: tuple[Trouble, ...]) -> tuple[Round, ...]:
    """Return a day; the same for the same arguments.

    Args:
        seed: Where chance begins.
        rounds: Into how many parts the day is cut.
        replicas: How many there are.
        troubles: What may go wrong.
    """
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, DAY_MINUTES), rounds - 1))
    lengths = [end - begin for begin, end in zip((0, *cuts), (*cuts, DAY_MINUTES), strict=True)]
    # Every kind once, in random order, before chance decides alone.
    bag: list[Trouble] = []
    day = []
    for minutes in lengths:
        faults = []
        if chance.random() < 0.6:
            if not bag:
                bag = chance.sample(troubles, len(troubles))
            faults.append(_fault(chance, bag.pop(), replicas))
        acts = tuple(_act(chance, replicas) for _ in range(chance.randint(6, 18)))
        commands = (_command(chance),) if chance.random() < 0.4 else ()
        day.append(Round(acts, tuple(faults), commands, minutes))
    return tuple(day)


def digest(day: tuple[Round, ...]) -> str:
    """Return what tells two days apart."""
    return hashlib.sha256(repr(day).encode()).hexdigest()


def _act(chance: random.Random, replicas: int) -> Act:
    return Act(
        agent=chance.randrange(AGENTS),
        deed=chance.choices(list(_DEEDS), list(_DEEDS.values()))[0],
        replica=chance.randrange(replicas),
        scope=chance.choices(SCOPES, _SCOPE_WEIGHTS)[0],
        pick=chance.random(),
        minutes=chance.choice((5, 20, 60, 240, 480)),
        heartbeat=chance.choice((0, 0, 15, 60)),
        patience=0.03 if chance.random() < 0.1 else 4,
    )


def _fault(chance: random.Random, trouble: Trouble, replicas: int) -> Fault:
    return Fault(
        trouble=trouble,
        replica=chance.randrange(replicas) if trouble in _ON_ONE else 0,
        path=chance.choice(_PATHS),
        times=chance.choice((-60, -5, 5, 60)) if trouble == "clock wrong" else chance.randint(1, 6),
        rounds=1 if trouble in _SHORT else chance.randint(1, 3),
    )


def _command(chance: random.Random) -> Command:
    return Command(
        order=chance.choices(list(_ORDERS), list(_ORDERS.values()))[0],
        agent=chance.randrange(AGENTS),
        scope=chance.choice(SCOPES),
        pick=chance.random(),
        minutes=chance.choice((0, 10, 60)),
    )
