"""Every wait of a workflow for the database or for Vault is a step, so that the process can be killed around it."""

import ast
from collections.abc import Iterator

import pytest

from broker.step import Step
from tests.architecture.sources import Function, Source, server

# Where the steps of each workflow are taken.
HOMES = {
    "issue": ("broker/deciding.py", "broker/issue.py"),
    "anchor": ("broker/anchors.py",),
    "undo": ("broker/undo.py",),
    "renew": ("broker/holding.py",),
    "revoke": ("broker/holding.py",),
    "takeback": ("broker/takeback.py",),
    "task": ("broker/tasks.py",),
    "outbox": ("broker/outbox.py",),
    "lock": ("broker/locks.py",),
    "vault": ("broker/mint/transport.py",),
}
# What reaches the database or Vault: methods of these, and functions that are given them.
REACHING = ("self._store", "self._lease", "self._vault")

MODULES = {source.name: source for source in server()}
WORKFLOWS = [MODULES[name] for name in sorted({name for names in HOMES.values() for name in names} & MODULES.keys())]


@pytest.mark.parametrize("source", WORKFLOWS, ids=lambda source: source.name)
def test_every_wait_is_a_step(source: Source) -> None:
    assert sorted(outside_steps(source)) == []


def test_whatever_takes_steps_is_looked_at() -> None:
    taking = {source.name for source in server() if "from broker.step import Step, step" in source.text}
    assert taking - {source.name for source in WORKFLOWS} == set()


def test_every_step_is_taken_where_its_name_says() -> None:
    taken = {source.name: steps_in(source) for source in WORKFLOWS}
    assert {step for steps in taken.values() for step in steps} == set(Step)
    misplaced = [
        f"{name}: {step.value}"
        for name, steps in taken.items()
        for step in steps
        if name not in HOMES[step.value.partition(".")[0]]
    ]
    assert misplaced == []


def steps_in(source: Source) -> set[Step]:
    return {
        Step[node.attr]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Step"
    }


def is_step(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step"


def outside_steps(source: Source) -> Iterator[str]:
    """Return what reaches out of the process and is no step's work.

    A step's work is its second argument, and whatever a function does that is
    called nowhere but there.
    """
    parents = {child: node for node in ast.walk(source.tree) for child in ast.iter_child_nodes(node)}
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]

    def is_work(call: ast.Call) -> bool:
        parent = parents[call]
        return isinstance(parent, ast.Call) and is_step(parent) and call in parent.args[1:]

    def function_of(node: ast.AST) -> Function | None:
        while node in parents:
            node = parents[node]
            if isinstance(node, Function):
                return node
        return None

    def is_inside(call: ast.Call) -> bool:
        if is_work(call):
            return True
        function = function_of(call)
        callers = [one for one in calls if function is not None and ast.unparse(one.func) == f"self.{function.name}"]
        return bool(callers) and all(is_inside(one) for one in callers)

    for call in calls:
        if reaches_out(call) and not is_inside(call):
            yield f"{source.at(call)}: {ast.unparse(call)}"


def reaches_out(call: ast.Call) -> bool:
    given = [ast.unparse(argument) for argument in call.args]
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if owner in REACHING:
        # A page of a list is shown to people and changes nothing.
        return ast.unparse(call.func).rpartition(".")[2] != "now" and not any(".page(conn" in text for text in given)
    return any(name in REACHING for name in given)
