"""The command line: what it teaches, and what it means."""

import argparse
from datetime import timedelta
from importlib.metadata import version

from credbroker.cli._wanted import (
    EnvOption,
    OneScope,
    ParamOption,
    PrefixOption,
    ScopeOption,
    TtlOption,
    Wanted,
    duration,
    pair,
)

_TOP = """\
Short-lived credentials for the task at hand.

  credbroker exec      run a command with credentials that die with it
  credbroker issue     print a credential for a shell or another program
  credbroker complete  end a task, and every credential issued for it
"""

_CONNECTION = """\
The broker and your evidence come from options or the environment:
  CREDBROKER_ADDRESS                           host:port of the broker
  CREDBROKER_CA_FILE                           certificates it is trusted by
  CREDBROKER_TOKEN or CREDBROKER_TOKEN_FILE    bearer token
  CREDBROKER_CERT_FILE with CREDBROKER_KEY_FILE  certificate for mutual TLS
A token is never taken from an option: others could see it in the process list.
"""

_EXEC = """\
Run a command with credentials in its environment. They are revoked when it
ends. Renewable ones are renewed while it runs.

  credbroker exec --scope reports-db --param role=ro --purpose "monthly report" -- psql
  credbroker exec --scope deploy --scope reports-db --prefix DB --purpose release -- make release

A Vault token arrives as VAULT_TOKEN, VAULT_ADDR and VAULT_NAMESPACE. What a
Vault engine returns arrives under the scope's name: username of reports-db as
REPORTS_DB_USERNAME. Choose other names with --prefix, or each with --env:

  credbroker exec --scope reports-db --env PGUSER=username --env PGPASSWORD=password ...

--param, --ttl, --prefix and --env belong to the --scope before them. The
command does not see CREDBROKER_TOKEN. Signals are passed on to it. The exit
code is the command's; 125 when no credentials could be had, 126 when the
command cannot be run, 127 when it is not found.
"""

_ISSUE = """\
Print a credential. Its task stays open so that it can be used, for as long as
--ttl says (by default as long as the broker lets a task run); the task's
identifier is printed on standard error. Prefer `credbroker exec` where it fits.

  eval "$(credbroker issue deploy --purpose "look around" --ttl 5m)"
  credbroker issue reports-db --param role=ro --purpose backup --output json
  credbroker issue reports-db --purpose backup --field password
"""

_COMPLETE = """\
End a task that `credbroker issue` left open. Every credential issued for it is
revoked.

  credbroker complete 0197f4b2-6c1e-7d3a-9a65-3f6c1f0b7c55
"""


class Arguments(argparse.Namespace):
    """What was given; which attributes are set depends on the command."""

    command: str
    verbose: bool
    address: str | None
    ca_file: str | None
    token_file: str | None
    cert_file: str | None
    key_file: str | None
    wait: timedelta
    wanted: list[Wanted]
    purpose: str
    labels: list[tuple[str, str]]
    timeout: timedelta | None
    output: str
    field: str | None
    task_id: str
    run: list[str]


def parse(argv: list[str]) -> Arguments:
    """Read the command line; tells what is wrong and exits with 2 when it cannot."""
    parser, exec_parser = _parsers()
    arguments = Arguments(run=[])
    if argv[:1] == ["exec"] and "--" in argv:
        place = argv.index("--")
        arguments.run = argv[place + 1 :]
        argv = argv[:place]
    parser.parse_args(argv, arguments)
    if arguments.command == "exec":
        if not arguments.wanted:
            exec_parser.error("name at least one --scope")
        if not arguments.run:
            exec_parser.error("give the command after --")
    return arguments


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="credbroker", description=_TOP, formatter_class=_Text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"credbroker {version('credbroker')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, description: str, usage: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, description=description, usage=usage, epilog=_CONNECTION, formatter_class=_Text, allow_abbrev=False
        )
        _add_connection(added)
        return added

    run = add("exec", _EXEC, "credbroker exec --scope SCOPE --purpose TEXT [options] -- COMMAND [ARGUMENT ...]")
    run.set_defaults(wanted=[])
    run.add_argument("--scope", action=ScopeOption, help="scope to get a credential of; may be repeated")
    _add_wanted(run)
    _add_task(run)
    run.add_argument(
        "--timeout", type=duration, metavar="TIME", help="when the task ends at the latest; the broker's default: 1h"
    )

    issue = add("issue", _ISSUE, "credbroker issue SCOPE --purpose TEXT [options]")
    issue.set_defaults(wanted=[Wanted("")])
    issue.add_argument("scope", metavar="SCOPE", action=OneScope, help="scope to get a credential of")
    _add_wanted(issue)
    _add_task(issue)
    issue.add_argument(
        "--output", choices=("env", "json", "raw"), default="env", help="shell exports (default), JSON, or one value"
    )
    issue.add_argument("--field", metavar="KEY", help="print this value alone, such as password")

    done = add("complete", _COMPLETE, "credbroker complete TASK [options]")
    done.add_argument("task_id", metavar="TASK", help="the task's identifier")
    return parser, run


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("broker and evidence")
    group.add_argument("--address", metavar="HOST:PORT", help="the broker")
    group.add_argument("--ca-file", metavar="FILE", help="PEM certificates that the broker is trusted by")
    group.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    group.add_argument("--cert-file", metavar="FILE", help="PEM certificate chain for mutual TLS")
    group.add_argument("--key-file", metavar="FILE", help="its private key")
    group.add_argument(
        "--wait",
        type=duration,
        default=timedelta(seconds=15),
        metavar="TIME",
        help="how long to try when it does not answer; 15s",
    )
    parser.add_argument("--verbose", "-v", action="store_true", help="tell about retries")


def _add_wanted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--param",
        action=ParamOption,
        metavar="NAME=TEXT",
        help="parameter of the scope; NAME:=JSON for numbers, lists and so on",
    )
    parser.add_argument(
        "--ttl", action=TtlOption, metavar="TIME", help="how long it should live, such as 90s, 15m or 2h"
    )
    parser.add_argument("--prefix", action=PrefixOption, metavar="NAME", help="variables are NAME_KEY")
    parser.add_argument("--env", action=EnvOption, metavar="NAME=KEY", help="set only the variables named like this")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--purpose", required=True, metavar="TEXT", help="why you need it; auditors read this")
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=VALUE",
        help="label of the task; scopes may ask for some",
    )


class _Text(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written."""
