"""Options that many commands share.

Kept light: this is imported to show ``--help``.
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec

import typer

from broker.cli.output import Format

if TYPE_CHECKING:
    from broker.cli.remote import Remote

P = ParamSpec("P")

Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="A table for people, json or jsonl for programs."),
]
Wide = Annotated[bool, typer.Option("--wide", help="Show every column, uncut.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="The most rows to show; 0 shows all.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
RawFilter = Annotated[
    str | None,
    typer.Option("--filter", help="A filter as the broker understands it (AIP-160), joined with the other options."),
]
Agent = Annotated[str | None, typer.Option("--agent", metavar="URI", help="Only of this agent.")]
Task = Annotated[str | None, typer.Option("--task", metavar="ID", help="Only of this task; the whole identifier.")]
Scope = Annotated[str | None, typer.Option("--scope", metavar="NAME", help="Only of this scope.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on: 2h (ago), 7d, or 2026-01-31T12:00:00Z."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then; written like --since.")]


def _connection(flag: str, metavar: str, text: str) -> object:
    return Annotated[str | None, typer.Option(flag, metavar=metavar, rich_help_panel="Connection", help=text)]


_CONNECTION: Mapping[str, object] = MappingProxyType(
    {
        "address": _connection("--address", "HOST:PORT", "The broker. (CREDBROKER_ADDRESS)"),
        "ca_file": _connection("--ca-file", "FILE", "CA bundle; the system's by default. (CREDBROKER_CA_FILE)"),
        "token_file": _connection("--token-file", "FILE", "Your token. (CREDBROKER_TOKEN_FILE)"),
        "token_env": _connection("--token-env", "NAME", "Variable that holds your token. (CREDBROKER_TOKEN)"),
        "cert_file": _connection(
            "--cert-file", "FILE", "Your X.509-SVID, for the mutual-TLS listener. (CREDBROKER_CERT_FILE)"
        ),
        "key_file": _connection("--key-file", "FILE", "Its private key. (CREDBROKER_KEY_FILE)"),
    }
)


def connected(command: Callable[Concatenate["Remote", P], None]) -> Callable[..., None]:
    """Give a command the connection options, and a connected `Remote` as its first argument."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from broker.cli.remote import connect, resolve

        given = {name: kwargs.pop(name, None) for name in _CONNECTION}
        options = {name: value for name, value in given.items() if isinstance(value, str)}
        with connect(resolve(options, os.environ)) as remote:
            command(remote, *args, **kwargs)

    own = list(inspect.signature(command).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _CONNECTION.items()
    ]
    signature = inspect.Signature([*(item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own), *added])
    vars(run)["__signature__"] = signature
    run.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    return run
