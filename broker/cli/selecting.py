"""What `broker revoke` takes back: read from options, and told in words."""

import typer
from credbroker.v1.revocation_pb2 import RevocationSelector, ScopeSelector
from credbroker.v1.revocation_service_pb2 import RevokeIssuancesResponse

from broker.cli.times import full_time
from broker.cli.views import confirmation, when


def selector(
    agent: str | None, scope: str | None, version: int | None, task: str | None, issuance: str | None
) -> RevocationSelector:
    """Return what the options select.

    Raises:
        typer.BadParameter: when they select nothing, or more than one thing.
    """
    given = [name for name in (agent, scope, task, issuance) if name is not None]
    if len(given) != 1:
        raise typer.BadParameter("give exactly one of --agent, --scope, --task and --issuance")
    if version is not None and scope is None:
        raise typer.BadParameter("goes with --scope", param_hint="--version")
    if agent is not None:
        return RevocationSelector(agent=agent)
    if scope is not None:
        return RevocationSelector(scope=ScopeSelector(name=scope, version=version or 0))
    if task is not None:
        return RevocationSelector(task_id=task)
    return RevocationSelector(issuance_id=given[0])


def found(reply: RevokeIssuancesResponse) -> str:
    """Say what there is to revoke."""
    if not reply.revoked_issuances:
        return "\n".join(["nothing to revoke", *_left(reply)])
    lines = [f"{_credentials(reply.revoked_issuances)} to revoke"]
    if reply.sibling_issuances:
        count = reply.sibling_issuances
        lines.append(f"{count} more {'has' if count == 1 else 'have'} to go with that: they hang from the same token")
    return "\n".join([*lines, *_left(reply)])


def question(reply: RevokeIssuancesResponse) -> str:
    """Ask whether to go on."""
    return f"Revoke {_credentials(reply.revoked_issuances + reply.sibling_issuances)}?"


def revoked(reply: RevokeIssuancesResponse) -> str:
    """Say what was revoked, and what Vault has said of it."""
    if not reply.revoked_issuances + reply.sibling_issuances:
        return "\n".join(["there was nothing to revoke", *_left(reply)])
    with_it = f", and {reply.sibling_issuances} more that had to go with that" if reply.sibling_issuances else ""
    return "\n".join(
        [
            f"put {_credentials(reply.revoked_issuances)} up for revocation{with_it} ({reply.id})",
            confirmation(reply.confirmed_issuances, reply.pending_issuances),
            *_left(reply),
        ]
    )


def _left(reply: RevokeIssuancesResponse) -> list[str]:
    lines = []
    if reply.expiring_issuances:
        last = full_time(when(reply.last_expire_time))
        lines.append(f"{_credentials(reply.expiring_issuances)} can only expire, the last at {last}: left alone")
    if reply.earlier_issuances:
        lines.append(
            f"{_credentials(reply.earlier_issuances)} had been put up before and not confirmed: `broker revocations`"
        )
    return lines


def _credentials(count: int) -> str:
    return f"{count} credential{'' if count == 1 else 's'}"
