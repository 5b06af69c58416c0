"""Which edges of steps are one moment: killing at one of them must do for all."""

from pathlib import Path

from broker.step import Step, observe, step
from tests.faults.edges import AFTER, BEFORE, Edge, Watch, moments


def edge(side: str, taken: Step, inside: Step | None = None, n: int = 1) -> Edge:
    return Edge(side, taken, inside, n)


A_READ = (edge(BEFORE, Step.ISSUE_LOOK_UP), edge(AFTER, Step.ISSUE_LOOK_UP))
A_CALL = (edge(BEFORE, Step.VAULT_CALL, Step.ISSUE_MINT), edge(AFTER, Step.VAULT_CALL, Step.ISSUE_MINT))
A_MINT = (edge(BEFORE, Step.ISSUE_MINT), *A_CALL, edge(AFTER, Step.ISSUE_MINT))


def test_nothing_happens_between_one_step_and_the_next_and_before_what_is_nested() -> None:
    assert moments([*A_READ, *A_MINT]) == [
        A_READ[:1],
        (A_READ[1], A_MINT[0], A_CALL[0]),
        (A_CALL[1], A_MINT[3]),
    ]


def test_a_step_that_begins_beside_another_is_a_moment_of_its_own() -> None:
    claim = edge(BEFORE, Step.OUTBOX_CLAIM)
    assert moments([A_READ[0], claim]) == [(A_READ[0],), (claim,)]


async def test_edges_are_counted_by_what_they_are_inside(tmp_path: Path) -> None:
    async def call() -> None:
        return None

    async def mint() -> None:
        await step(Step.VAULT_CALL, call())
        await step(Step.VAULT_CALL, call())

    end = observe(Watch(tmp_path / "edges", None))
    await step(Step.VAULT_CALL, call())
    await step(Step.ISSUE_MINT, mint())
    end()

    passed = [Edge.from_json(line) for line in (tmp_path / "edges").read_text().splitlines()]
    again = tuple(edge(one.side, one.step, one.inside, 2) for one in A_CALL)
    assert passed == [A_MINT[0], *A_CALL, *again, A_MINT[3]], "a call of no workflow is not among them"
    assert str(again[0]) == "before vault.call in issue.mint #2"
