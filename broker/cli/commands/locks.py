"""`broker lock`, `broker unlock` and `broker locks`: the kill switch."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Limit, Output, Wide, connected
from broker.cli.output import Format, print_one, say, to_json

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer()


class Kind(StrEnum):
    """What a lock holds."""

    AGENT = "agent"
    PATTERN = "pattern"
    TASK = "task"
    SCOPE = "scope"


_FIELDS = {Kind.AGENT: "agent", Kind.PATTERN: "agent_pattern", Kind.TASK: "task_id", Kind.SCOPE: "scope"}


@app.command("lock")
@connected
def lock(
    remote: "Remote",
    kind: Annotated[Kind, typer.Argument(help="What to hold.")],
    target: Annotated[str, typer.Argument(help="An agent's URI, a pattern of them, a task, or a scope's name.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who read it later.")],
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="DURATION", help="Ends by itself after 30m, 2h, 7d. Default: never.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Refuse from now on, and revoke what is out: at once, without asking.

    A lock on agents or on a task ends the tasks it holds; one on a scope takes
    back what was issued under it and leaves the tasks. It says what Vault has
    confirmed to be gone and what is pending; the broker keeps asking until
    everything is.

    Example: broker lock agent spiffe://a.org/reports --reason leaked --ttl 2h

    In a pattern, * stands for one segment of the path, a final ** for the rest:
    broker lock pattern 'spiffe://a.org/agents/**' --reason "incident 7"
    """
    from credbroker.v1.lock_pb2 import LockTarget
    from credbroker.v1.lock_service_pb2 import CreateLockRequest

    from broker.cli.inputs import duration_option
    from broker.cli.views import confirmation, holds
    from broker.terminal import printable

    request = CreateLockRequest(target=LockTarget(**{_FIELDS[kind]: target}), reason=reason)
    if ttl is not None:
        request.ttl.FromTimedelta(duration_option(ttl, "--ttl"))
    reply = remote.call(remote.locks.CreateLock, request)

    def tell() -> None:
        say(printable(f"locked {holds(reply.lock)} ({reply.lock.id})"))
        say(f"ended tasks: {reply.ended_tasks}; credentials put up for revocation: {reply.revoked_issuances}")
        if reply.revoked_issuances:
            say(confirmation(reply.confirmed_issuances, reply.pending_issuances))

    print_one(to_json(reply), output, tell)


@app.command("unlock")
@connected
def unlock(
    remote: "Remote",
    lock_id: Annotated[str, typer.Argument(metavar="LOCK", help="Its identifier, or the end of it as tables show it.")],
) -> None:
    """Lift a lock. What it revoked stays revoked.

    Example: broker unlock 9f2c01ab
    """
    from credbroker.v1.lock_service_pb2 import DeleteLockRequest

    from broker.cli import fetch
    from broker.cli.lists import full_id

    identifier = full_id(lock_id, "lock", fetch.locks(remote))
    remote.call(remote.locks.DeleteLock, DeleteLockRequest(id=identifier))
    say(f"lifted {identifier}")


@app.command("locks")
@connected
def list_locks(remote: "Remote", limit: Limit = 50, output: Output = Format.TABLE, wide: Wide = False) -> None:
    """List the locks in force, newest first.

    Example: broker locks --wide
    """
    from broker.cli import fetch
    from broker.cli.lists import show_list
    from broker.cli.views import LOCKS

    show_list(fetch.locks(remote), LOCKS, output, limit=limit, wide=wide, empty="no lock is in force")
