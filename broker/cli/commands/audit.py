"""`broker audit`."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Agent, Limit, Output, RawFilter, Scope, Since, Task, Until, Wide, connected
from broker.cli.output import Format

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer(no_args_is_help=True, help="Read the audit trail. For auditors; reading it is recorded, too.")


@app.command("events")
@connected
def list_events(
    remote: "Remote",
    agent: Agent = None,
    task: Task = None,
    scope: Scope = None,
    issuance: Annotated[str | None, typer.Option("--issuance", metavar="ID", help="Only of this issuance.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only of this type, such as credential.issued.")
    ] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="success, denied or failure.")] = None,
    since: Since = None,
    until: Until = None,
    raw: RawFilter = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    wide: Wide = False,
) -> None:
    """List audit events, newest first.

    Example: broker audit events --outcome denied --since 24h
    """
    from credbroker.v1.audit_event_pb2 import AuditOutcome

    from broker.cli import fetch
    from broker.cli.filters import between, compose, equal
    from broker.cli.inputs import enum_option, moment_option
    from broker.cli.lists import show_list
    from broker.cli.views import EVENTS

    conditions = [
        *equal("agent", agent),
        *equal("task_id", task),
        *equal("scope", scope),
        *equal("issuance_id", issuance),
        *equal("type", kind),
        *equal("outcome", enum_option(outcome, AuditOutcome.DESCRIPTOR, "--outcome")),
        *between("time", moment_option(since, "--since"), moment_option(until, "--until")),
    ]
    query = compose(conditions, raw)
    show_list(fetch.events(remote, query), EVENTS, output, limit=limit, wide=wide, empty="no event matches")
