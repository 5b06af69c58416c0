"""The servicers: from message to record, workflow, from record to message; nothing else."""

from dataclasses import dataclass

from broker import config
from broker.holding import Holdings
from broker.issue import Issuer
from broker.locks import Locks
from broker.query import Query
from broker.scopes import Scopes
from broker.serve.services import audit, credential, lock, revocation, scope, status, task
from broker.serve.services.service import Service
from broker.status import Status
from broker.takeback import Takeback
from broker.tasks import Tasks

__all__ = ["Service", "Workflows", "build"]


@dataclass(frozen=True, slots=True)
class Workflows:
    """What the services lead to."""

    tasks: Tasks
    issuer: Issuer
    holdings: Holdings
    scopes: Scopes
    locks: Locks
    takeback: Takeback
    status: Status
    query: Query


def build(workflows: Workflows, settings: config.Settings) -> tuple[Service, ...]:
    """Return every service of the contract."""
    return (
        task.service(workflows.tasks, settings.tasks),
        credential.service(workflows.issuer, workflows.holdings, settings.tasks, settings.vault),
        scope.service(workflows.scopes),
        lock.service(workflows.locks),
        revocation.service(workflows.takeback),
        status.service(workflows.status),
        audit.service(workflows.query),
    )
