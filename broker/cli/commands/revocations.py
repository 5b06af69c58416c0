"""`broker revoke` and `broker revocations`: taking back what is out, and what of it Vault has yet to confirm."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Limit, Output, Wide, Yes, connected
from broker.cli.output import Format, note, print_one, say, to_json

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer()


@app.command("revoke")
@connected
def revoke(
    remote: "Remote",
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who read it later.")],
    agent: Annotated[str | None, typer.Option("--agent", metavar="URI", help="All that this agent holds.")] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="NAME", help="All that was issued under this scope.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="With --scope: only what this version issued.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="All of this task; its identifier, or the end of it."),
    ] = None,
    issuance: Annotated[
        str | None, typer.Option("--issuance", metavar="ID", help="One credential; the whole identifier.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would be.")] = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Take back what is out. It refuses nothing from then on: that is what `broker lock` does.

    Tasks go on. A batch token dies only together with everything that hangs
    from the same token of its task; what has to go with what you name is shown
    before you are asked. It says what Vault has confirmed to be gone and what
    is pending; the broker keeps asking until everything is.

    Example: broker revoke --scope reports-db --version 3 --reason "too wide"
    """
    from credbroker.v1.revocation_service_pb2 import RevokeIssuancesRequest

    from broker.cli import fetch
    from broker.cli.lists import full_id
    from broker.cli.selecting import found, question, revoked, selector

    if task is not None:
        task = full_id(task, "task", fetch.tasks(remote))
    request = RevokeIssuancesRequest(selector=selector(agent, scope, version, task, issuance), reason=reason)
    if dry_run or not yes:
        request.validate_only = True
        counted = remote.call(remote.revocations.RevokeIssuances, request)
        if dry_run:
            print_one(to_json(counted), output, lambda: say(found(counted)))
            return
        if not counted.revoked_issuances:
            print_one(to_json(counted), output, lambda: say(found(counted)))
            return
        note(found(counted))
        typer.confirm(question(counted), abort=True, err=True)
        request.validate_only = False
    reply = remote.call(remote.revocations.RevokeIssuances, request)
    print_one(to_json(reply), output, lambda: say(revoked(reply)))


@app.command("revocations")
@connected
def list_revocations(remote: "Remote", limit: Limit = 50, output: Output = Format.TABLE, wide: Wide = False) -> None:
    """List what was put up for revocation and Vault has not confirmed, the longest waiting first.

    Example: broker revocations --wide
    """
    from broker.cli import fetch
    from broker.cli.lists import show_list
    from broker.cli.views import REVOCATIONS

    empty = "Vault has confirmed everything"
    show_list(fetch.revocations(remote), REVOCATIONS, output, limit=limit, wide=wide, empty=empty)
