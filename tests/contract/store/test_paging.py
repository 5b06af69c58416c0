"""Pages of lists, on every database."""

import base64
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.errors import BrokerError, PageTokenInvalid
from broker.model import AuditEvent, Page, Task
from broker.store import Store, events, issuances, tasks
from broker.store.paging import PageOf
from tests.fixtures.records import AGENT, a_task, an_event

OTHER = "spiffe://example.org/other"


@pytest.fixture
async def listed(store: Store) -> list[AuditEvent]:
    """Ten events, newest first, of two types in turn."""
    records = [an_event(type=("task.started", "task.completed")[n % 2]) for n in range(10)]
    await store.write(lambda conn: events.append(conn, records))
    return records[::-1]


def of(store: Store, page: Page) -> Awaitable[PageOf[AuditEvent]]:
    return store.read(lambda conn: events.page(conn, page))


@pytest.mark.parametrize("size", [1, 3, 5, 9, 10, 11, 1000])
@pytest.mark.parametrize("filter_text", ["", "type = task.started"])
async def test_pages_together_are_the_list(store: Store, listed: list[AuditEvent], size: int, filter_text: str) -> None:
    found: list[AuditEvent] = []
    token, pages = "", 0
    while token or not pages:
        page = await of(store, Page(size, token, filter_text))
        assert len(page.items) <= size
        found += page.items
        token, pages = page.next_token, pages + 1
    wanted = [event for event in listed if not filter_text or event.type == "task.started"]
    assert found == wanted
    assert pages == -(-len(wanted) // size)


async def test_a_list_without_items_is_one_page(store: Store) -> None:
    assert await of(store, Page()) == PageOf([], "")


async def test_what_is_added_while_reading_moves_nothing(store: Store, listed: list[AuditEvent]) -> None:
    first = await of(store, Page(size=4))
    await store.write(lambda conn: events.append(conn, [an_event() for _ in range(3)]))
    second = await of(store, Page(size=4, token=first.next_token))
    await store.write(lambda conn: events.append(conn, [an_event()]))
    third = await of(store, Page(size=4, token=second.next_token))
    assert [*first.items, *second.items, *third.items] == listed


async def test_the_size_may_change_between_pages(store: Store, listed: list[AuditEvent]) -> None:
    first = await of(store, Page(size=2))
    rest = await of(store, Page(size=50, token=first.next_token))
    assert [*first.items, *rest.items] == listed


@pytest.mark.parametrize("size", [0, -1, 1001])
async def test_sizes_out_of_bounds_are_the_callers_mistake(store: Store, size: int) -> None:
    with pytest.raises(RuntimeError, match="1 to 1000"):
        await of(store, Page(size=size))


class TestTokens:
    @pytest.fixture
    async def token(self, store: Store, listed: list[AuditEvent]) -> str:
        return (await of(store, Page(size=2, filter="type = task.started"))).next_token

    async def refused(self, ask: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(PageTokenInvalid):
            await ask()

    async def test_not_with_another_filter(self, store: Store, token: str) -> None:
        await self.refused(lambda: of(store, Page(token=token)))
        await self.refused(lambda: of(store, Page(token=token, filter="type = task.completed")))

    async def test_not_in_another_list(self, store: Store, token: str) -> None:
        page = Page(token=(await of(store, Page(size=2))).next_token)
        await self.refused(lambda: store.read(lambda conn: issuances.page(conn, page)))
        await self.refused(lambda: store.read(lambda conn: tasks.page(conn, page, None)))

    async def test_not_for_another_agent(self, store: Store) -> None:
        records = [a_task(agent=agent) for agent in (AGENT, OTHER) for _ in range(2)]

        def insert(task: Task) -> Awaitable[None]:
            return store.write(lambda conn: tasks.insert(conn, task))

        for task in records:
            await insert(task)
        token = (await store.read(lambda conn: tasks.page(conn, Page(size=1), AGENT))).next_token
        page = Page(token=token)
        assert len((await store.read(lambda conn: tasks.page(conn, page, AGENT))).items) == 1
        await self.refused(lambda: store.read(lambda conn: tasks.page(conn, page, OTHER)))
        await self.refused(lambda: store.read(lambda conn: tasks.page(conn, page, None)))

    async def test_not_when_altered(self, store: Store, token: str) -> None:
        raw = base64.urlsafe_b64decode(token + "==")
        key = raw[16:]
        keys = (b"", b"x", b"\xff", b"' OR 1=1 --", key.upper(), key + b"0", key + b"\0", b"0" * 9999)
        made_up = [base64.urlsafe_b64encode(raw[:16] + key).decode().rstrip("=") for key in keys]
        garbled = [token + "=", token + "A", token[:-1], token[1:], " " + token, token + "\n", "é", "\ud800", "==="]
        for altered in made_up + garbled:
            page = Page(token=altered, filter="type = task.started")
            with pytest.raises(PageTokenInvalid):
                await of(store, page)

    # Each example asks the same unchanged database.
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(token=st.text(min_size=1, max_size=120))
    @example(token="A" * 100_000)
    async def test_whatever_is_sent_is_refused_by_name(self, store: Store, token: str) -> None:
        with pytest.raises(BrokerError) as refused:
            await of(store, Page(token=token))
        assert isinstance(refused.value, PageTokenInvalid)
