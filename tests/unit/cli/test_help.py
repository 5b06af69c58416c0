import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from broker.cli.app import app


def leaves(command: object, *path: str) -> Iterator[tuple[str, ...]]:
    below: dict[str, object] = getattr(command, "commands", {})
    if not below:
        yield path
    for name, child in below.items():
        yield from leaves(child, *path, name)


COMMANDS = sorted(leaves(get_command(app)))


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == 0
    return result.stdout


def test_every_command_is_there() -> None:
    assert [" ".join(words) for words in COMMANDS] == [
        "audit events",
        "config check",
        "db check",
        "db upgrade",
        "demo",
        "dev",
        "issuances list",
        "issuances show",
        "lock",
        "locks",
        "revocations",
        "revoke",
        "scopes apply",
        "scopes delete",
        "scopes explain",
        "scopes list",
        "scopes plan",
        "scopes show",
        "serve",
        "status",
        "tasks list",
        "tasks show",
        "unlock",
        "vault policy",
        "vault setup",
    ]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_teaches_with_an_example_on_one_line(words: tuple[str, ...]) -> None:
    lines = shown(*words).splitlines()
    examples = [line.strip() for line in lines if line.strip().startswith("Example: ")]
    assert [example.partition("broker ")[2].startswith(" ".join(words)) for example in examples] == [True]
    # A line that was cut in two would leave a short rest.
    following = lines[next(at for at, line in enumerate(lines) if "Example: " in line) + 1]
    assert following.strip() == ""


def test_help_of_what_talks_to_a_broker_says_how_to_reach_one() -> None:
    for words in COMMANDS:
        remote = words[0] in {
            "audit",
            "issuances",
            "lock",
            "locks",
            "revocations",
            "revoke",
            "scopes",
            "status",
            "tasks",
            "unlock",
        }
        assert ("CREDBROKER_ADDRESS" in shown(*words)) is remote, words


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    heavy = {"grpc", "hvac", "sqlalchemy", "cryptography", "psycopg", "aiohttp", "yaml", "requests", "structlog"}
    script = "import sys; from broker.cli.app import app; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {name for name in heavy if f"'{name}'" in loaded} == set()


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("broker 0.")
