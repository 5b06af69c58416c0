"""What filters select, on every database."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import FilterInvalid
from broker.ids import new_id
from broker.model import AnchorRecord, AuditEvent, Issuance, IssuanceState, Outcome, Page, TaskState
from broker.store import Store, events, issuances, tasks
from tests.contract.store.conftest import Issue
from tests.fixtures.records import AGENT, HOUR, NOW, a_task, an_event

HOSTILE = """O'Brien "; DROP TABLE events; -- \\ %_ :now $1 ?"""


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class TestIssuances:
    @pytest.fixture
    async def three(self, issue: Issue) -> list[Issuance]:
        return [
            await issue(),
            await issue(
                agent=AGENT + "/b",
                scope="wiki",
                scope_version=4,
                kind="leased",
                state=IssuanceState.REVOKED,
                fingerprint="ab" * 32,
                created_at=NOW + HOUR,
                expires_at=NOW + 2 * HOUR,
                ended_at=NOW + HOUR,
            ),
            await issue(scope_version=10, created_at=NOW + 2 * HOUR, expires_at=NOW + 3 * HOUR),
        ]

    @pytest.mark.parametrize(
        ("filter_text", "wanted"),
        [
            ("", [2, 1, 0]),
            (" \t\r\n ", [2, 1, 0]),
            (f"agent = {AGENT}", [2, 0]),
            (f'agent="{AGENT}/b"', [1]),
            (f"agent != '{AGENT}'", [1]),
            ("agent = spiffe://example.org/*", []),
            ("agent = SPIFFE://example.org/agent", []),
            ("scope = wiki", [1]),
            ("scope_version = 4", [1]),
            ("scope_version > 3", [2, 1]),
            ("scope_version >= 4 AND scope_version < 10", [1]),
            ("scope_version <= 3", [0]),
            ("kind != vault_token", [1]),
            ("state = ACTIVE", [2, 0]),
            ("state = active AND scope_version = 10", [2]),
            ("state != Active", [1]),
            (f"fingerprint = {'ab' * 32}", [1]),
            ('create_time = "2026-01-01T00:00:00Z"', [0]),
            ("create_time > 2026-01-01T00:00:00Z", [2, 1]),
            ("create_time >= 2026-01-01T02:00:00+01:00", [2, 1]),
            ("create_time < 2026-01-01T00:00:00.000001Z", [0]),
            ("expire_time <= 2026-01-01T02:00:00-00:00", [1, 0]),
            ("end_time < 2027-01-01T00:00:00Z", [1]),
            ("end_time != 2026-01-01T01:00:00Z", [2, 0]),
            ("scope = wiki AND scope = db-read", []),
        ],
    )
    async def test_select_by_every_field(
        self, store: Store, three: list[Issuance], filter_text: str, wanted: list[int]
    ) -> None:
        found = await store.read(lambda conn: issuances.page(conn, Page(filter=filter_text)))
        assert found.items == [three[index] for index in wanted]

    async def test_select_by_task(self, store: Store, three: list[Issuance], anchor: AnchorRecord) -> None:
        for task_id, count in ((anchor.task_id, 3), (anchor.task_id.upper(), 3), (new_id(), 0)):
            page = Page(filter=f"task_id = {task_id}")
            assert len((await store.read(partial(issuances.page, page=page))).items) == count


async def test_tasks_are_selected_by_every_field(store: Store) -> None:
    first, second = a_task(), a_task(agent="b", state=TaskState.LOCKED, ended_at=NOW, created_at=NOW + HOUR)
    await store.write(partial(tasks.insert, task=first))
    await store.write(partial(tasks.insert, task=second))
    for filter_text, wanted in (
        ("agent = b", second),
        ("state = ACTIVE", first),
        ("state = heartbeat_missed", None),
        ("state = LOCKED AND create_time >= 2026-01-01T01:00:00Z", second),
        ("create_time <= 2026-01-01T00:59:59.999999Z", first),
    ):
        page = Page(filter=filter_text)
        found = await store.read(partial(tasks.page, page=page, agent=None))
        assert found.items == ([] if wanted is None else [wanted])


async def test_a_filter_never_widens_what_an_agent_sees(store: Store) -> None:
    mine, other = a_task(), a_task(agent="b")
    await store.write(partial(tasks.insert, task=mine))
    await store.write(partial(tasks.insert, task=other))
    page = Page(filter="agent = b")
    assert (await store.read(lambda conn: tasks.page(conn, page, AGENT))).items == []
    assert (await store.read(lambda conn: tasks.page(conn, Page(), AGENT))).items == [mine]


class TestEvents:
    @pytest.fixture
    async def pair(self, store: Store) -> tuple[AuditEvent, AuditEvent]:
        plain = an_event()
        special = replace(
            plain,
            id=new_id(),
            time=NOW + timedelta(microseconds=1),
            type="request.refused",
            outcome=Outcome.DENIED,
            reason="SCOPE_DENIED",
            actor=HOSTILE,
            agent=HOSTILE,
            method="/x/Y",
            task_id=new_id(),
            issuance_id=new_id(),
            scope="",
        )
        await store.write(lambda conn: events.append(conn, [plain, special]))
        return plain, special

    async def selected(self, store: Store, filter_text: str) -> list[AuditEvent]:
        return list((await store.read(lambda conn: events.page(conn, Page(filter=filter_text)))).items)

    async def test_select_by_every_field(self, store: Store, pair: tuple[AuditEvent, AuditEvent]) -> None:
        _, special = pair
        for filter_text in (
            "type = request.refused",
            "outcome = denied",
            "reason = SCOPE_DENIED",
            f"actor = {quoted(HOSTILE)}",
            f"agent = {quoted(HOSTILE)}",
            'method = "/x/Y"',
            f"task_id = {special.task_id}",
            f"issuance_id = {special.issuance_id}",
            'scope = ""',
            "time > 2026-01-01T00:00:00Z",
        ):
            assert await self.selected(store, filter_text) == [special], filter_text

    async def test_unequal_includes_what_has_no_value(self, store: Store, pair: tuple[AuditEvent, AuditEvent]) -> None:
        plain, special = pair
        assert await self.selected(store, f"task_id != {special.task_id}") == [plain]

    @pytest.mark.parametrize(
        "attack",
        [
            "agent = x' OR '1'='1",
            'agent = "x" OR agent = "y"',
            "agent = x; DROP TABLE events",
            "1 = 1",
            "events.agent = x",
            "agent = agent",
            "agent = (SELECT 1)",
            "id = x",
            "detail = x",
            "attributes = x",
            "agent IN (x)",
            "agent : x",
            "NOT agent = x",
            "agent = x -- ",
            "agent = x/**/AND/**/1=1",
            "agent LIKE %",
        ],
    )
    async def test_injection_is_refused_or_means_what_it_says(
        self, store: Store, pair: tuple[AuditEvent, AuditEvent], attack: str
    ) -> None:
        with suppress(FilterInvalid):
            assert await self.selected(store, attack) == []
        assert len(await self.selected(store, "")) == 2

    # Each example asks the same unchanged database.
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40))
    async def test_any_text_can_be_asked_for_and_is_only_a_value(
        self, store: Store, pair: tuple[AuditEvent, AuditEvent], value: str
    ) -> None:
        assert len(await self.selected(store, f"agent != {quoted(value)}")) == 2
        assert await self.selected(store, f"agent = {quoted(value)}") == []
