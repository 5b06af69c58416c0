"""The first page of lists that auditors filter, with one million issuances and twice as many events stored.

One auditor asks on one connection. Each question is recorded as an event before
its answer leaves, as always; that is part of the time.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from credbroker.v1 import audit_service_pb2 as audit
from sqlalchemy import text

from broker.dev.people import AUDITORS
from tests.bench.figures import Figure, percentile
from tests.bench.stack import Bench
from tests.bench.volume_fill import History, agent_name, scope_name
from tests.bench.wire import WrongReply, grpc_connection
from tests.bench.worker import Access, Link, worker

GOAL_MS: Final = 20.0
STORED, QUICK_STORED = 1_000_000, 2_000
ASKED, QUICK_ASKED = 60, 5
_PAGE_SIZE: Final = 50
_WARM_UP: Final = 2
STORED_KIB: Final = "stored for one issuance with its events, its share of the task, and all indices"
_SIZE: Final = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgres": "SELECT pg_database_size(current_database())",
}
_SERVICE: Final = "credbroker.v1.AuditService/"


async def run(bench: Bench) -> list[Figure]:
    """Ask each question many times, and judge the slowest of them."""
    stored, asked = (QUICK_STORED, QUICK_ASKED) if bench.quick else (STORED, ASKED)
    history = History(issuances=stored, live=stored // 1_000)
    figures: list[Figure] = []
    with bench.parts.broker(bench.database, quick=bench.quick, compare=False, history=history) as full:
        with full.records() as engines, engines.writer.begin() as conn:
            size = conn.execute(text(_SIZE[full.database])).scalar_one()
        figures.append(Figure(STORED_KIB, size / stored / 1024, "KiB"))
        token = bench.parts.issuer.token("auditor", claims={"groups": [AUDITORS]}).reveal()
        for listed, filters in (("issuances", _of_issuances()), ("events", _of_events())):
            arguments = {"token": token, "listed": listed, "filters": list(filters.values()), "asked": asked}
            async with worker(ask, full.access, **arguments) as link:
                seen: list[list[float]] = await link.hear()
            worst = max(percentile(of_filter, 0.95) for of_filter in seen)
            figures.append(Figure(f"{listed}: first page, the slowest filter's p95", worst * 1000, "ms", GOAL_MS))
            for name, of_filter in zip(filters, seen, strict=True):
                figures.append(Figure(f"{listed}: first page by {name}, p95", percentile(of_filter, 0.95) * 1000, "ms"))
    return figures


def _of_issuances() -> dict[str, str]:
    return {
        "nothing": "",
        "a busy agent": f'agent = "{agent_name(0)}"',
        "a quiet agent": f'agent = "{agent_name(998)}"',
        "an agent unknown": 'agent = "spiffe://nowhere.test/nobody"',
        "a busy scope": f'scope = "{scope_name(0)}"',
        "what is alive": "state = ACTIVE",
        "what failed": "state = FAILED",
        "an agent and what is alive": f'agent = "{agent_name(0)}" AND state = ACTIVE',
        "a quiet agent and a busy scope": f'agent = "{agent_name(998)}" AND scope = "{scope_name(0)}"',
        "a day": _day("create_time"),
        "an agent and a day": f'agent = "{agent_name(0)}" AND {_day("create_time")}',
        "a fingerprint unknown": f'fingerprint = "{"0" * 64}"',
    }


def _of_events() -> dict[str, str]:
    return {
        "nothing": "",
        "a busy agent": f'agent = "{agent_name(0)}"',
        "a quiet agent": f'agent = "{agent_name(998)}"',
        "a busy scope": f'scope = "{scope_name(0)}"',
        "a common type": 'type = "credential.issued"',
        "a rare type": 'type = "credential.mint_failed"',
        "what was denied": "outcome = DENIED",
        "an agent and what was denied": f'agent = "{agent_name(998)}" AND outcome = DENIED',
        "an agent and a type": f'agent = "{agent_name(0)}" AND type = "credential.revoked"',
        "a day": _day("time"),
        "a type and a day": f'type = "request.refused" AND {_day("time")}',
    }


def _day(field: str) -> str:
    begin = datetime.now(UTC) - timedelta(days=45)
    return f'{field} >= "{begin.isoformat()}" AND {field} < "{(begin + timedelta(days=1)).isoformat()}"'


async def ask(link: Link, access: Access, token: str, listed: str, filters: list[str], asked: int) -> None:
    """Ask for the first page by each filter; say how long each answer took, in seconds."""
    context = ssl.create_default_context(cafile=access.ca_file)
    connection = await grpc_connection(access.broker, context, token)
    seen: list[list[float]] = []
    for condition in filters:
        method, message = _request(listed, condition)
        times: list[float] = []
        for _ in range(asked + _WARM_UP):
            began = time.perf_counter()
            async with asyncio.timeout(60):
                answer = await connection.call(method, message)
            times.append(time.perf_counter() - began)
            _check(listed, condition, answer)
        seen.append(times[_WARM_UP:])
    connection.transport.close()
    link.say(seen)


def _request(listed: str, condition: str) -> tuple[str, bytes]:
    if listed == "issuances":
        request = audit.ListIssuancesRequest(page_size=_PAGE_SIZE, filter=condition)
        return _SERVICE + "ListIssuances", request.SerializeToString()
    events = audit.ListAuditEventsRequest(page_size=_PAGE_SIZE, filter=condition)
    return _SERVICE + "ListAuditEvents", events.SerializeToString()


def _check(listed: str, condition: str, answer: bytes) -> None:
    rows: Sequence[object]
    if listed == "issuances":
        rows = audit.ListIssuancesResponse.FromString(answer).issuances
    else:
        rows = audit.ListAuditEventsResponse.FromString(answer).events
    if len(rows) > _PAGE_SIZE or (not condition and len(rows) < _PAGE_SIZE):
        raise WrongReply(f"a first page with {len(rows)} rows")
