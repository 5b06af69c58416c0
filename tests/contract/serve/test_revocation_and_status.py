"""RevocationService and StatusService: what each hands to its workflow, and what it makes of the answer."""

from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from credbroker.v1 import revocation_service_pb2, status_service_pb2
from credbroker.v1.revocation_pb2 import RevocationSelector, ScopeSelector
from google.protobuf.json_format import MessageToDict

from broker.mint.health import VaultHealth
from broker.model import Page, Selection
from broker.status import Problem
from tests.contract.serve.harness import Harness, refusal
from tests.fakes.identify import AGENT
from tests.fixtures.records import NOW, a_report, a_revocation, a_store_status, a_task

if TYPE_CHECKING:
    # Only the stubs know the asynchronous ones by name.
    from credbroker.v1.revocation_service_pb2_grpc import RevocationServiceAsyncStub
    from credbroker.v1.status_service_pb2_grpc import StatusServiceAsyncStub

UUID = "0190a6f2-7b1c-7def-8123-456789abcdef"


async def test_what_is_not_confirmed_is_listed(running: Harness, revocations: "RevocationServiceAsyncStub") -> None:
    entry = a_revocation(a_task(), attempts=3, last_error="the engine is away", lease_id="db/creds/x/1")
    running.takeback.unconfirmed = [entry, entry]
    reply = await revocations.ListRevocations(revocation_service_pb2.ListRevocationsRequest(page_size=1))
    assert running.takeback.pages == [Page(1)]
    assert reply.next_page_token == "next"
    (found,) = reply.revocations
    assert (found.id, found.task_id, found.issuance_id) == (entry.id, entry.task_id, entry.issuance_id or "")
    assert (found.vault_accessor, found.vault_lease_id) == (entry.accessor, "db/creds/x/1")
    assert (found.attempts, found.last_error, found.reason) == (3, "the engine is away", entry.reason)
    assert found.request_time.ToMicroseconds() == int(entry.requested_at.timestamp() * 1e6)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await revocations.ListRevocations(revocation_service_pb2.ListRevocationsRequest(page_size=-1))
    assert refusal(caught.value).violations == ["page_size"]


async def test_status(running: Harness, condition: "StatusServiceAsyncStub") -> None:
    running.status.report = a_report(problems=(Problem("X", "it is bad", "mend it"),))
    assert MessageToDict(await condition.GetStatus(status_service_pb2.GetStatusRequest())) == {
        "problems": [{"reason": "X", "message": "it is bad", "advice": "mend it"}],
        "replica": "one",
        "version": "0.1.0",
        "time": "2026-01-01T00:00:00Z",
        "database": {"kind": "sqlite", "migration": "0002", "newestMigration": "0002"},
        "vault": {"ready": True, "version": "2.7.2", "tokenTtl": "3600s", "clockDifference": "0s"},
        "standing": {"activeTasks": "3", "liveIssuances": "7", "locksInForce": "1"},
        "replicas": [
            {
                "name": "one",
                "version": "0.1.0",
                "startTime": "2025-12-31T23:00:00Z",
                "seenTime": "2026-01-01T00:00:00Z",
            }
        ],
        "works": [{"name": "reap", "holder": "one", "expireTime": "2026-01-01T00:00:06Z"}],
    }


async def test_status_of_a_broker_in_trouble(running: Harness, condition: "StatusServiceAsyncStub") -> None:
    entry = a_revocation(a_task(), requested_at=NOW - timedelta(minutes=2))
    running.status.report = a_report(
        vault=VaultHealth(problem="Vault is sealed"), store=a_store_status(overdue=(entry,), replicas=(), leases=())
    )
    reply = await condition.GetStatus(status_service_pb2.GetStatusRequest())
    assert (reply.vault.ready, reply.vault.problem) == (False, "Vault is sealed")
    assert not reply.vault.HasField("token_ttl")
    assert not reply.vault.HasField("clock_difference")
    assert [one.id for one in reply.overdue_revocations] == [entry.id]


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        (RevocationSelector(agent=AGENT), Selection(agent=AGENT)),
        (RevocationSelector(scope=ScopeSelector(name="orders")), Selection(scope="orders")),
        (
            RevocationSelector(scope=ScopeSelector(name="orders", version=3)),
            Selection(scope="orders", scope_version=3),
        ),
        (RevocationSelector(task_id=UUID), Selection(task_id=UUID)),
        (RevocationSelector(issuance_id=UUID.upper()), Selection(issuance_id=UUID)),
    ],
)
async def test_what_is_selected_is_counted_and_revoked(
    running: Harness,
    revocations: "RevocationServiceAsyncStub",
    selector: RevocationSelector,
    wanted: Selection,
) -> None:
    request = revocation_service_pb2.RevokeIssuancesRequest(selector=selector, reason="too wide", validate_only=True)
    counted = await revocations.RevokeIssuances(request)
    request.validate_only = False
    done = await revocations.RevokeIssuances(request)
    assert running.takeback.wanted == [(wanted, None), (wanted, "too wide")]
    found = {"expiringIssuances": 2, "lastExpireTime": "2026-01-01T00:00:00Z", "earlierIssuances": 4}
    assert MessageToDict(counted) == {"revokedIssuances": 3, "siblingIssuances": 1, **found}
    assert done.id
    done.id = ""
    assert MessageToDict(done) == {
        "revokedIssuances": 5,
        "siblingIssuances": 2,
        "confirmedIssuances": 4,
        "pendingIssuances": 3,
        **found,
    }


async def test_bounds_of_what_is_taken_back(running: Harness, revocations: "RevocationServiceAsyncStub") -> None:
    good = RevocationSelector(agent=AGENT)
    for selector, reason, fields in (
        (RevocationSelector(), "x", ["selector"]),
        (good, "", ["reason"]),
        (good, "x" * 501, ["reason"]),
        (good, "x\n", ["reason"]),
        (RevocationSelector(agent="a"), "x", ["selector.agent"]),
        (RevocationSelector(agent=""), "x", ["selector.agent"]),
        (RevocationSelector(task_id="1"), "x", ["selector.task_id"]),
        (RevocationSelector(issuance_id=""), "x", ["selector.issuance_id"]),
        (RevocationSelector(scope=ScopeSelector()), "x", ["selector.scope.name"]),
        (RevocationSelector(scope=ScopeSelector(name="a", version=-1)), "x", ["selector.scope.version"]),
    ):
        for validate_only in (False, True):
            request = revocation_service_pb2.RevokeIssuancesRequest(
                selector=selector, reason=reason, validate_only=validate_only
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await revocations.RevokeIssuances(request)
            assert refusal(caught.value).violations == fields
    assert running.takeback.calls == []
