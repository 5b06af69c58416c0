"""One page of each kind of record, in the form that `broker.cli.lists` follows."""

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from credbroker.v1.audit_event_pb2 import AuditEvent
from credbroker.v1.audit_service_pb2 import ListAuditEventsRequest, ListIssuancesRequest
from credbroker.v1.issuance_pb2 import Issuance
from credbroker.v1.lock_pb2 import Lock
from credbroker.v1.lock_service_pb2 import ListLocksRequest
from credbroker.v1.revocation_pb2 import Revocation
from credbroker.v1.revocation_service_pb2 import ListRevocationsRequest
from credbroker.v1.scope_pb2 import Scope
from credbroker.v1.scope_service_pb2 import ListScopesRequest
from credbroker.v1.task_pb2 import Task
from credbroker.v1.task_service_pb2 import ListTasksRequest

from broker.cli.remote import Remote

Item = TypeVar("Item")
Fetch: TypeAlias = Callable[[int, str], tuple[Iterable[Item], str]]


def tasks(remote: Remote, query: str = "") -> Fetch[Task]:
    """Fetch tasks, newest first."""

    def fetch(size: int, token: str) -> tuple[Iterable[Task], str]:
        request = ListTasksRequest(page_size=size, page_token=token, filter=query)
        reply = remote.call(remote.tasks.ListTasks, request)
        return reply.tasks, reply.next_page_token

    return fetch


def issuances(remote: Remote, query: str = "") -> Fetch[Issuance]:
    """Fetch issuances, newest first."""

    def fetch(size: int, token: str) -> tuple[Iterable[Issuance], str]:
        request = ListIssuancesRequest(page_size=size, page_token=token, filter=query)
        reply = remote.call(remote.audit.ListIssuances, request)
        return reply.issuances, reply.next_page_token

    return fetch


def events(remote: Remote, query: str = "") -> Fetch[AuditEvent]:
    """Fetch audit events, newest first."""

    def fetch(size: int, token: str) -> tuple[Iterable[AuditEvent], str]:
        request = ListAuditEventsRequest(page_size=size, page_token=token, filter=query)
        reply = remote.call(remote.audit.ListAuditEvents, request)
        return reply.events, reply.next_page_token

    return fetch


def locks(remote: Remote) -> Fetch[Lock]:
    """Fetch the locks in force, newest first."""

    def fetch(size: int, token: str) -> tuple[Iterable[Lock], str]:
        reply = remote.call(remote.locks.ListLocks, ListLocksRequest(page_size=size, page_token=token))
        return reply.locks, reply.next_page_token

    return fetch


def revocations(remote: Remote) -> Fetch[Revocation]:
    """Fetch what Vault has not confirmed, the longest waiting first."""

    def fetch(size: int, token: str) -> tuple[Iterable[Revocation], str]:
        request = ListRevocationsRequest(page_size=size, page_token=token)
        reply = remote.call(remote.revocations.ListRevocations, request)
        return reply.revocations, reply.next_page_token

    return fetch


def scopes(remote: Remote) -> Fetch[Scope]:
    """Fetch the current scopes, by name."""

    def fetch(size: int, token: str) -> tuple[Iterable[Scope], str]:
        reply = remote.call(remote.scopes.ListScopes, ListScopesRequest(page_size=size, page_token=token))
        return reply.scopes, reply.next_page_token

    return fetch
