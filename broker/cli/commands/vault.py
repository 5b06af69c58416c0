"""`broker vault`."""

from enum import StrEnum
from typing import Annotated

import typer

from broker.cli.options import Yes
from broker.cli.output import say

app = typer.Typer(no_args_is_help=True, help="Prepare Vault or OpenBao for the broker. For Vault's admins.")


class Identity(StrEnum):
    """Vault identities that the broker's operation needs."""

    BROKER = "broker"
    PROVISIONER = "provisioner"
    REAPER = "reaper"


@app.command("setup")
def setup(yes: Yes = False) -> None:
    """Write the policies that the broker's three Vault identities need. Shows a plan first; safe to repeat.

    Needs VAULT_ADDR and VAULT_TOKEN of a Vault admin (and VAULT_CACERT, VAULT_NAMESPACE).

    Example: broker vault setup
    """
    from broker.cli import vault_admin
    from broker.cli.changes import real, render_change, summary
    from broker.mint import provision

    client = vault_admin.admin_client()
    changes = real(provision.plan_setup(client))
    if not changes:
        say("nothing to change")
        return
    for change in changes:
        say(render_change(change, "Vault"))
    say(summary(changes))
    if not yes:
        typer.confirm("Apply these changes?", abort=True)
    provision.apply_setup(client)
    say("done; give the broker a token or AppRole that has the policy credbroker-broker and nothing else")


@app.command("policy")
def policy(identity: Annotated[Identity, typer.Argument(help="Whose policy.")]) -> None:
    """Print a policy as HCL, to read it or to apply it by other means.

    Example: broker vault policy broker | vault policy write credbroker-broker -
    """
    from broker.mint import provision

    policies = {
        Identity.BROKER: provision.broker_policy,
        Identity.PROVISIONER: provision.provisioner_policy,
        Identity.REAPER: provision.reaper_policy,
    }
    typer.echo(policies[identity]().rstrip("\n"))
