"""A plan's dealings with the broker: what it has, and carrying the plan out there."""

from collections.abc import Collection, Iterator

from credbroker.v1.scope_pb2 import Scope
from credbroker.v1.scope_service_pb2 import CreateScopeRequest, DeleteScopeRequest, GetScopeRequest, UpdateScopeRequest

from broker.cli import fetch
from broker.cli.changes import ScopeChange
from broker.cli.failures import Failure
from broker.cli.lists import PAGE_SIZE, pages
from broker.cli.remote import Remote


def current_scopes(remote: Remote, names: Collection[str], *, others: bool) -> Iterator[Scope]:
    """Return the current scopes of these names, as far as there are such.

    Args:
        remote: The broker.
        names: Which scopes.
        others: Whether all others are wanted as well.

    Raises:
        Failure: when the broker refused or could not be reached.
    """
    # Files that name more than a page holds name most of what there is, as a rule, and pages bring that sooner.
    if others or len(names) > PAGE_SIZE:
        return pages(fetch.scopes(remote))
    return (scope for name in names if (scope := _current(remote, name)) is not None)


def _current(remote: Remote, name: str) -> Scope | None:
    try:
        return remote.call(remote.scopes.GetScope, GetScopeRequest(name=name)).scope
    except Failure as failure:
        if failure.reason == "SCOPE_NOT_FOUND":
            return None
        raise


def carry_out(remote: Remote, change: ScopeChange) -> str:
    """Make one change and say what it came to.

    Raises:
        Failure: when the broker refused, for instance because somebody else
            changed the scope since the plan was made.
    """
    if change.action == "create":
        created = remote.call(remote.scopes.CreateScope, CreateScopeRequest(document=change.after)).scope
        return f"created {created.name} version {created.version}"
    if change.action == "update":
        request = UpdateScopeRequest(document=change.after, etag=change.etag)
        updated = remote.call(remote.scopes.UpdateScope, request).scope
        return f"updated {updated.name} to version {updated.version}"
    if change.action == "delete":
        remote.call(remote.scopes.DeleteScope, DeleteScopeRequest(name=change.name, etag=change.etag))
        return f"deleted {change.name}"
    return f"{change.name} is up to date"
