"""Carrying a plan out in the broker."""

from credbroker.v1.scope_service_pb2 import CreateScopeRequest, DeleteScopeRequest, UpdateScopeRequest

from broker.cli.changes import ScopeChange
from broker.cli.remote import Remote


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
