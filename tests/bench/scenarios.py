"""The scenarios by name: each is one module with a docstring that says what it measures and one function."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.bench import (
    bounds,
    connections,
    expiry_wave,
    footprint,
    growth,
    issuing,
    kill_switch,
    leased,
    lists,
    renewals,
    startup,
    task_end,
    tasks,
)
from tests.bench.figures import Figure
from tests.bench.stack import Bench


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to measure.

    Attributes:
        run: Measures it.
        usual: Whether `make bench` runs it; the others take minutes each.
        workers: With how many workers; one run for each number.
    """

    run: Callable[[Bench], Awaitable[list[Figure]]]
    usual: bool = False
    workers: tuple[int, ...] = (1,)

    @property
    def summary(self) -> str:
        """The first line of what its module says about itself."""
        module = __import__(self.run.__module__, fromlist=["__doc__"])
        return (module.__doc__ or "").strip().splitlines()[0]


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "issuing": Scenario(issuing.run, usual=True, workers=(1, 2)),
        "bounds": Scenario(bounds.run),
        "leased": Scenario(leased.run, usual=True),
        "renewals": Scenario(renewals.run, usual=True),
        "tasks": Scenario(tasks.run, usual=True),
        "startup": Scenario(startup.run, usual=True),
        "footprint": Scenario(footprint.run, usual=True),
        "growth": Scenario(growth.run),
        "lists": Scenario(lists.run),
        "task-end": Scenario(task_end.run),
        "kill-switch": Scenario(kill_switch.run),
        "expiry-wave": Scenario(expiry_wave.run),
        "connections": Scenario(connections.run),
    }
)
