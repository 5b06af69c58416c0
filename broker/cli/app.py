"""The `broker` command, put together from its groups."""

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from broker.cli.commands import audit, embedded, issuances, locks, revocations, scopes, server, status, tasks, vault
from broker.cli.failures import ADVICE, MISUSED, REFUSED, Failure
from broker.cli.output import console

if TYPE_CHECKING:
    from broker.errors import BrokerError


class _Reporting(TyperGroup):
    """Tells failures in words instead of tracebacks, for every command below it."""

    def invoke(self, ctx: object) -> object:
        """Run a command; a failure is told and sets the exit code.

        Raises:
            typer.Exit: with 1 when something refused or failed, with 2 when
                the input or the configuration is wrong.
        """
        from broker.errors import BrokerError, ConfigError

        try:
            return super().invoke(ctx)  # type: ignore[arg-type]  # typer keeps the type of its contexts to itself
        except Failure as failure:
            _report(failure)
            raise typer.Exit(failure.exit_code) from None
        except BrokerError as error:
            _report(_from_broker(error))
            raise typer.Exit(MISUSED if isinstance(error, ConfigError) else REFUSED) from None


def _from_broker(error: "BrokerError") -> Failure:
    first, *others = error.detail.split("\n")
    if not others:
        return Failure(first, reason=error.reason, advice=ADVICE.get(error.reason, ""))
    return Failure(error.message, reason=error.reason, details=[first, *others])


def _report(failure: Failure) -> None:
    first, *details = failure.lines()
    errors = console(stderr=True)
    errors.print(first, style="red", soft_wrap=True)
    for line in details:
        errors.print(line, soft_wrap=True)


app = typer.Typer(
    name="broker",
    cls=_Reporting,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Short-lived credentials for AI agents: run the broker, write its scopes, see and stop what it issued.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"broker {version('credbroker-server')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Short-lived credentials for AI agents: run the broker, write its scopes, see and stop what it issued.

    The commands that talk to a broker take their connection from CREDBROKER_ADDRESS, CREDBROKER_CA_FILE and
    CREDBROKER_TOKEN_FILE, or from options. `broker dev` starts one to try things on.
    """


for group, name in (
    (server.app, None),
    (server.config_app, "config"),
    (server.database_app, "db"),
    (vault.app, "vault"),
    (scopes.app, "scopes"),
    (tasks.app, "tasks"),
    (issuances.app, "issuances"),
    (audit.app, "audit"),
    (locks.app, None),
    (revocations.app, None),
    (status.app, None),
    (embedded.app, None),
):
    app.add_typer(group, name=name)
