"""The scenarios by name: each is one module with a docstring that says what it measures and one function."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from tests.bench import connections, expiry_wave, kill_switch, task_end
from tests.bench.figures import Figure
from tests.bench.stack import Bench

Scenario = Callable[[Bench], Awaitable[list[Figure]]]

SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "task-end": task_end.run,
        "kill-switch": kill_switch.run,
        "expiry-wave": expiry_wave.run,
        "connections": connections.run,
    }
)


def summary(scenario: Scenario) -> str:
    """Return the first line of what a scenario's module says about itself."""
    module = __import__(scenario.__module__, fromlist=["__doc__"])
    return (module.__doc__ or "").strip().splitlines()[0]
