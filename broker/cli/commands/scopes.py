"""`broker scopes`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Limit, Output, Wide, Yes, connected
from broker.cli.output import Format, note, print_json, print_json_line, print_one, say, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.cli.changes import Change, ScopeChange
    from broker.cli.remote import Remote
    from broker.cli.scope_files import ScopeFile

app = typer.Typer(no_args_is_help=True, help="Write scopes: who may have which credential. For admins.")

Places = Annotated[
    list[Path], typer.Argument(metavar="FILE|DIR...", help="Scope documents, or folders of them (*.yaml, *.yml).")
]
Prune = Annotated[bool, typer.Option("--prune", help="Delete the scopes that no file names.")]
NoVault = Annotated[bool, typer.Option("--no-vault", help="Leave Vault's roles and policies alone.")]
Name = Annotated[str, typer.Argument(metavar="SCOPE", help="The scope's name.")]


@app.command("plan")
@connected
def plan(
    remote: "Remote", places: Places, prune: Prune = False, no_vault: NoVault = False, output: Output = Format.TABLE
) -> None:
    """Show what `broker scopes apply` would change, in the broker and in Vault. Changes nothing.

    Vault's part needs VAULT_ADDR and VAULT_TOKEN (and VAULT_CACERT, VAULT_NAMESPACE).

    Example: broker scopes plan scopes/
    """
    from broker.cli import vault_admin
    from broker.cli.changes import to_value
    from broker.cli.scope_files import read_scopes

    files = read_scopes(places)
    in_broker = _plan(remote, files, prune)
    with_vault = not no_vault and vault_admin.configured()
    in_vault = vault_admin.plan(vault_admin.admin_client(), files) if with_vault else []
    if output is Format.TABLE:
        _show(in_broker, in_vault)
        if not with_vault and not no_vault:
            note(f"Vault's part is not shown: {vault_admin.ENVIRONMENT} are not set")
        return
    values = [to_value(change, "broker") for change in in_broker] + [to_value(change, "vault") for change in in_vault]
    if output is Format.JSON:
        print_json(values)
    else:
        for value in values:
            print_json_line(value)


@app.command("apply")
@connected
def apply(remote: "Remote", places: Places, prune: Prune = False, no_vault: NoVault = False, yes: Yes = False) -> None:
    """Make the broker's scopes, and Vault's roles and policies for them, what the files say.

    Vault comes first, so that nobody is granted what cannot be minted.

    Needs VAULT_ADDR and VAULT_TOKEN of an identity that may provision: see
    `broker vault policy provisioner`.

    Example: broker scopes apply scopes/
    """
    from broker.cli import vault_admin
    from broker.cli.changes import real
    from broker.cli.scope_calls import carry_out
    from broker.cli.scope_files import read_scopes
    from broker.terminal import printable

    files = read_scopes(places)
    client = None if no_vault else vault_admin.admin_client()
    in_broker = _plan(remote, files, prune)
    in_vault = vault_admin.plan(client, files) if client else []
    _show(in_broker, in_vault)
    if not real(in_broker) and not real(in_vault):
        return
    if not yes:
        typer.confirm("Apply these changes?", abort=True)
    if client:
        vault_admin.apply(client, files)
    for change in in_broker:
        if change.action != "none":
            say(printable(carry_out(remote, change)))
        if client and change.action == "delete":
            vault_admin.remove(client, change.name, change.before)


def _plan(remote: "Remote", files: "Sequence[ScopeFile]", prune: bool) -> "list[ScopeChange]":
    from broker.cli.changes import plan_scopes
    from broker.cli.scope_calls import current_scopes

    return plan_scopes(files, current_scopes(remote, [file.name for file in files], others=prune), prune=prune)


def _show(in_broker: "Sequence[Change]", in_vault: "Sequence[Change]") -> None:
    from broker.cli.changes import real, render_change, summary

    changes = [(change, "broker") for change in real(in_broker)] + [(change, "Vault") for change in real(in_vault)]
    for change, where in changes:
        say(render_change(change, where))
    if changes:
        say(summary([change for change, _ in changes]))
    else:
        say("nothing to change")


@app.command("list")
@connected
def list_scopes(remote: "Remote", limit: Limit = 0, output: Output = Format.TABLE, wide: Wide = False) -> None:
    """List the current scopes, by name.

    Example: broker scopes list --wide
    """
    from broker.cli import fetch
    from broker.cli.lists import show_list
    from broker.cli.views import SCOPES

    show_list(fetch.scopes(remote), SCOPES, output, limit=limit, wide=wide, empty="there is no scope yet")


@app.command("show")
@connected
def show(
    remote: "Remote",
    name: Name,
    version: Annotated[int, typer.Option("--version", min=0, help="An earlier version; 0 is the current one.")] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show one scope with its document.

    Example: broker scopes show reports-db --version 2
    """
    from credbroker.v1.scope_service_pb2 import GetScopeRequest

    from broker.cli.details import show_scope

    found = remote.call(remote.scopes.GetScope, GetScopeRequest(name=name, version=version)).scope
    print_one(to_json(found), output, lambda: show_scope(found))


@app.command("delete")
@connected
def delete(remote: "Remote", name: Name, no_vault: NoVault = False, yes: Yes = False) -> None:
    """Delete a scope: nothing is issued under it any more. `broker lock scope` also revokes what is out.

    With VAULT_ADDR and VAULT_TOKEN set, its Vault role and policy go as well,
    and with the policy the rights of Vault tokens that are still out.

    Example: broker scopes delete reports-db
    """
    from credbroker.v1.scope_service_pb2 import GetScopeRequest

    from broker.cli import vault_admin
    from broker.cli.changes import ScopeChange
    from broker.cli.scope_calls import carry_out
    from broker.terminal import printable

    found = remote.call(remote.scopes.GetScope, GetScopeRequest(name=name)).scope
    if not yes:
        typer.confirm(f"Delete {printable(found.name)} (version {found.version})?", abort=True)
    say(printable(carry_out(remote, ScopeChange("delete", found.name, found.document, "", found.etag))))
    if no_vault:
        return
    if not vault_admin.configured():
        note(f"its Vault role and policy stay: {vault_admin.ENVIRONMENT} are not set")
        return
    for change in vault_admin.remove(vault_admin.admin_client(), found.name, found.document):
        say(printable(f"deleted Vault {change.kind} {change.name}"))


@app.command("explain")
@connected
def explain(
    remote: "Remote",
    agent: Annotated[str, typer.Option("--agent", metavar="URI", help="The agent that would ask.")],
    scope: Annotated[str, typer.Option("--scope", metavar="NAME", help="The scope it would ask for.")],
    params: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter; NAME:=JSON for others.")
    ] = None,
    claims: Annotated[
        list[str] | None, typer.Option("--claim", metavar="NAME=VALUE", help="A claim of its token; NAME:=JSON.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label of the task it would work on.")
    ] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="The purpose of that task.")] = "",
    ttl: Annotated[str | None, typer.Option("--ttl", metavar="DURATION", help="The time to live it asks for.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Say whether an agent would get a scope, and which rule decides. Issues nothing.

    Example: broker scopes explain --agent spiffe://a.org/x --scope reports-db

    Values that are not text are written as JSON: --claim 'groups:=["data"]'
    """
    from credbroker.v1.scope_service_pb2 import ExplainAccessRequest

    from broker.cli.details import show_explanation
    from broker.cli.inputs import duration_option, labels_option, pairs_option

    request = ExplainAccessRequest(scope=scope, task_purpose=purpose)
    request.agent.uri = agent
    request.agent.claims.update(pairs_option(claims or [], "--claim"))
    request.parameters.update(pairs_option(params or [], "--param"))
    request.task_labels.update(labels_option(labels or [], "--label"))
    if ttl is not None:
        request.ttl.FromTimedelta(duration_option(ttl, "--ttl"))
    reply = remote.call(remote.scopes.ExplainAccess, request)
    print_one(to_json(reply), output, lambda: show_explanation(reply, scope))
