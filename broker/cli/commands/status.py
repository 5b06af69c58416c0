"""`broker status`: how the broker is."""

from typing import TYPE_CHECKING

import typer

from broker.cli.options import Output, connected
from broker.cli.output import Format, print_one, to_json

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer()


@app.command("status")
@connected
def status(remote: "Remote", output: Output = Format.TABLE) -> None:
    """Say how the broker is, and what needs a person. For admins and auditors.

    Exits with 0 when all is well, and with 1 when something needs a person or
    the broker cannot be reached.

    Example: broker status
    """
    from credbroker.v1.status_service_pb2 import GetStatusRequest

    from broker.cli.condition import show_status

    found = remote.call(remote.status.GetStatus, GetStatusRequest())
    print_one(to_json(found), output, lambda: show_status(found))
    if found.problems:
        raise typer.Exit(1)
