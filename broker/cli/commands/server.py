"""`broker serve`, `broker config` and `broker db`: running the server, and getting ready for that."""

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.output import say

MOST_WORKERS = 64

app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Check the broker's configuration.")
database_app = typer.Typer(no_args_is_help=True, help="Prepare the broker's database.")

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The broker's configuration.")]


@app.command("serve")
def serve(
    config: Config = Path("broker.yaml"),
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_WORKERS, help="How many processes serve; at most one per CPU.")
    ] = 1,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the broker until SIGTERM or Ctrl-C; requests under way are finished first.

    Exits with 0 after a clean end and with 2 when the configuration is wrong.

    Example: broker serve --config /etc/credbroker/broker.yaml --workers 4
    """
    from broker.cli.lean import load_without_rich

    load_without_rich()
    from broker.cli.settings import check, load

    if workers == 1:
        from broker.cli.serving import run

        run(load(config), lifeline)
    else:
        from broker.cli.supervising import supervise

        supervise(check(config), config, workers)


@config_app.command("check")
def check_config(config: Config = Path("broker.yaml")) -> None:
    """Check the configuration; say every problem with its place and what was expected. Exits with 2 then.

    Example: broker config check --config broker.yaml
    """
    from broker.cli.settings import check, describe

    for line in describe(check(config)):
        say(line)


@database_app.command("upgrade")
def upgrade_database(config: Config = Path("broker.yaml")) -> None:
    """Bring the database to the newest schema. Safe to repeat, also while brokers run.

    Example: broker db upgrade --config broker.yaml
    """
    from broker.cli.settings import database_url, load
    from broker.store import migrate

    url = database_url(load(config))
    before = migrate.current_revision(url)
    migrate.upgrade(url)
    after = migrate.current_revision(url)
    say(f"the database is at revision {after}" if before == after else f"upgraded the database to revision {after}")


@database_app.command("check")
def check_database(config: Config = Path("broker.yaml")) -> None:
    """Say whether the database has the newest schema; exits with 1 when it does not.

    Example: broker db check --config broker.yaml
    """
    from broker.cli.failures import Failure
    from broker.cli.settings import database_url, load
    from broker.store import migrate

    url = database_url(load(config))
    current, head = migrate.current_revision(url), migrate.head_revision()
    if migrate.pending(url):
        raise Failure(
            f"the database is at revision {current or 'none'}, the newest is {head}", advice="run `broker db upgrade`"
        )
    say(f"the database is at the newest revision, {head}")
