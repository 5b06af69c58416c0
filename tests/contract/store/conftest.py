from collections.abc import Awaitable, Callable

import pytest

from broker.model import AnchorRecord, Issuance, Task
from broker.store import Store, anchors, issuances, tasks
from tests.fixtures.records import a_task, an_anchor, an_issuance

Issue = Callable[..., Awaitable[Issuance]]


@pytest.fixture
async def task(store: Store) -> Task:
    """A stored task."""
    task = a_task()
    await store.write(lambda conn: tasks.insert(conn, task))
    return task


@pytest.fixture
async def anchor(store: Store, task: Task) -> AnchorRecord:
    """A stored anchor of the task."""
    anchor = an_anchor(task)
    await store.write(lambda conn: anchors.insert(conn, anchor))
    return anchor


@pytest.fixture
def issue(store: Store, anchor: AnchorRecord) -> Issue:
    """Store an issuance under the anchor."""

    async def issue(**changes: object) -> Issuance:
        issuance = an_issuance(anchor, **changes)
        await store.write(lambda conn: issuances.insert(conn, issuance))
        return issuance

    return issue
