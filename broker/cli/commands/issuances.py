"""`broker issuances`."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Agent, Limit, Output, RawFilter, Scope, Since, Task, Until, Wide, connected
from broker.cli.output import Format, print_one, to_json

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer(no_args_is_help=True, help="Look at what was issued. For auditors.")


@app.command("list")
@connected
def list_issuances(
    remote: "Remote",
    agent: Agent = None,
    task: Task = None,
    scope: Scope = None,
    state: Annotated[
        str | None,
        typer.Option("--state", help="minting, active, revoking, revoked, expired or failed."),
    ] = None,
    since: Since = None,
    until: Until = None,
    raw: RawFilter = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    wide: Wide = False,
) -> None:
    """List issued credentials, newest first.

    Example: broker issuances list --agent spiffe://a.org/reports --since 7d

    A leaked credential is traced by its fingerprint:
    broker issuances list --filter 'fingerprint = "3f…"'
    """
    from credbroker.v1.issuance_pb2 import IssuanceState

    from broker.cli import fetch
    from broker.cli.filters import between, compose, equal
    from broker.cli.inputs import enum_option, moment_option
    from broker.cli.lists import show_list
    from broker.cli.views import ISSUANCES

    conditions = [
        *equal("agent", agent),
        *equal("task_id", task),
        *equal("scope", scope),
        *equal("state", enum_option(state, IssuanceState.DESCRIPTOR, "--state")),
        *between("create_time", moment_option(since, "--since"), moment_option(until, "--until")),
    ]
    query = compose(conditions, raw)
    show_list(fetch.issuances(remote, query), ISSUANCES, output, limit=limit, wide=wide, empty="no issuance matches")


@app.command("show")
@connected
def show_issuance(
    remote: "Remote",
    issuance: Annotated[
        str, typer.Argument(metavar="ISSUANCE", help="Its identifier, or the end of it as tables show it.")
    ],
    output: Output = Format.TABLE,
) -> None:
    """Show the whole life of one credential: who got it, why, and what became of it.

    Example: broker issuances show 9f2c01ab
    """
    from credbroker.v1.audit_service_pb2 import GetIssuanceRequest

    from broker.cli import fetch
    from broker.cli.details import show_issuance as render
    from broker.cli.lists import full_id

    identifier = full_id(issuance, "issuance", fetch.issuances(remote))
    reply = remote.call(remote.audit.GetIssuance, GetIssuanceRequest(id=identifier))
    print_one(to_json(reply), output, lambda: render(reply.issuance, list(reply.events)))
