"""Where secrets come into the open, and where they must not go."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Source, client, server

# The modules, and folders, that hand a secret on to where it belongs. A new one is
# a decision for a reviewer, hence each has its reason.
REVEALS = {
    "broker/app.py": "the database's URL, on its way from the settings to the store",
    "broker/attest/reading.py": "a caller's token, to be parsed and verified",
    "broker/cli/remote.py": "the operator's own token, into the call's metadata",
    "broker/cli/settings.py": "the database's URL, on its way to migrations; its kind, for `config check`",
    "broker/dev/": "the embedded stack's own secrets, made for it and of no use elsewhere",
    "broker/issue.py": "what was minted, into its fingerprint",
    "broker/mint/credentials.py": "AppRole's secret id, into the login",
    "broker/mint/sync_client.py": "an admin's token, into hvac",
    "broker/mint/transport.py": "the broker's and anchors' tokens, into Vault's header",
    "broker/mint/vault_token.py": "the child token, as the credential that it is",
    "broker/secret.py": "compares, and makes fingerprints",
    "broker/serve/convert/resources.py": "the credential, into the reply to its agent",
    "broker/store/engine.py": "the database's URL, into the driver",
    "clients/python/src/credbroker/_views.py": "the credential, to the program that asked for it",
}
REVEALING = {"reveal", "get_secret_value"}
TELLING = {"debug", "info", "warning", "warn", "error", "exception", "critical", "log", "msg", "bind", "print", "echo"}


def revealing(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REVEALING:
            yield node


def told(source: Source) -> Iterator[str]:
    """Yield where a secret is revealed within something that is shown to people."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise) and any(revealing(node)):
            yield f"{source.at(node)}: in an error"
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TELLING and any(revealing(node))
        ):
            yield f"{source.at(node)}: in a message"


def test_secrets_are_revealed_in_listed_modules_alone() -> None:
    found = {listed(source.name) for source in (*server(), *client()) if any(revealing(source.tree))}
    assert found - REVEALS.keys() == set(), "reveals a secret and is not listed"
    assert REVEALS.keys() - found == set(), "is listed and reveals nothing"


def listed(name: str) -> str:
    return next((entry for entry in REVEALS if entry.endswith("/") and name.startswith(entry)), name)


def test_no_secret_is_revealed_into_messages() -> None:
    assert [where for source in (*server(), *client()) for where in told(source)] == []


@pytest.mark.parametrize(
    "text",
    [
        "log.info('minted', token=token.reveal())",
        "raise ValueError(f'bad {token.reveal()}')",
        "print(settings.database.url.get_secret_value())",
    ],
)
def test_revealing_into_a_message_is_noticed(text: str) -> None:
    source = server()[0]
    assert list(told(Source(source.path, text, ast.parse(text)))) != []
