from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from credbroker.v1.audit_service_pb2_grpc import AuditServiceStub
from credbroker.v1.credential_service_pb2_grpc import CredentialServiceStub
from credbroker.v1.lock_service_pb2_grpc import LockServiceStub
from credbroker.v1.revocation_service_pb2_grpc import RevocationServiceStub
from credbroker.v1.scope_service_pb2_grpc import ScopeServiceStub
from credbroker.v1.status_service_pb2_grpc import StatusServiceStub
from credbroker.v1.task_service_pb2_grpc import TaskServiceStub

from tests.contract.serve.harness import Harness
from tests.fixtures.clock import FakeClock

if TYPE_CHECKING:
    # Only the stubs know the asynchronous ones by name.
    from credbroker.v1.audit_service_pb2_grpc import AuditServiceAsyncStub
    from credbroker.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub
    from credbroker.v1.lock_service_pb2_grpc import LockServiceAsyncStub
    from credbroker.v1.revocation_service_pb2_grpc import RevocationServiceAsyncStub
    from credbroker.v1.scope_service_pb2_grpc import ScopeServiceAsyncStub
    from credbroker.v1.status_service_pb2_grpc import StatusServiceAsyncStub
    from credbroker.v1.task_service_pb2_grpc import TaskServiceAsyncStub


@pytest.fixture
async def harness(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Harness]:
    """A server that is not started yet."""
    harness = Harness(tmp_path, clock)
    yield harness
    await harness.drain()


@pytest.fixture
async def running(harness: Harness) -> Harness:
    await harness.start()
    return harness


@pytest.fixture
async def agent(running: Harness) -> AsyncIterator[grpc.aio.Channel]:
    async with running.channel("agent-token") as channel:
        yield channel


@pytest.fixture
async def admin(running: Harness) -> AsyncIterator[grpc.aio.Channel]:
    async with running.channel("admin-token") as channel:
        yield channel


@pytest.fixture
async def auditor(running: Harness) -> AsyncIterator[grpc.aio.Channel]:
    async with running.channel("auditor-token") as channel:
        yield channel


@pytest.fixture
def tasks(agent: grpc.aio.Channel) -> "TaskServiceAsyncStub":
    return TaskServiceStub(agent)


@pytest.fixture
def credentials(agent: grpc.aio.Channel) -> "CredentialServiceAsyncStub":
    return CredentialServiceStub(agent)


@pytest.fixture
def scopes(admin: grpc.aio.Channel) -> "ScopeServiceAsyncStub":
    return ScopeServiceStub(admin)


@pytest.fixture
def locks(admin: grpc.aio.Channel) -> "LockServiceAsyncStub":
    return LockServiceStub(admin)


@pytest.fixture
def revocations(admin: grpc.aio.Channel) -> "RevocationServiceAsyncStub":
    return RevocationServiceStub(admin)


@pytest.fixture
def condition(auditor: grpc.aio.Channel) -> "StatusServiceAsyncStub":
    return StatusServiceStub(auditor)


@pytest.fixture
def audit(auditor: grpc.aio.Channel) -> "AuditServiceAsyncStub":
    return AuditServiceStub(auditor)
