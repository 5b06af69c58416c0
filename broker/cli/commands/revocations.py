"""`broker revocations`: what Vault has yet to confirm."""

from typing import TYPE_CHECKING

import typer

from broker.cli.options import Limit, Output, Wide, connected
from broker.cli.output import Format

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer()


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
