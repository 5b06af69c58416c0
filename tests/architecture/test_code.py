"""What every module is held to, beyond what the linters know."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator

from tests.architecture.sources import Source, client, modules, server

MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_TEST_MODULE = 600
MOST_LINES_OF_A_FUNCTION = 60

OURS = (*server(), *client(), *modules("tools"), *modules("deploy"))

# Time is injected: these alone may ask the machine for it. The embedded servers
# and the operators' terminal run beside the broker, not in it; the store counts
# how long its own threads wait, and gRPC's deadlines are the machine's.
READ_THE_CLOCK = (
    "broker/clock.py",
    "broker/deadline.py",
    "broker/cli/",
    "broker/dev/",
    "broker/store/store.py",
    "clients/",
    "tools/",
)
CLOCKS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "monotonic"),
    ("time", "monotonic_ns"),
    ("time", "sleep"),
    ("asyncio", "sleep"),
}

# What switches a check off must say why on the same line.
SWITCH = re.compile(r"#\s*(type:\s*ignore\S*|noqa\S*(?:\s[A-Z]+[0-9]+)?)(?P<rest>.*)")


def test_everything_public_says_what_it_is() -> None:
    silent = [where for source in (*server(), *client()) for where in undocumented(source)]
    assert silent == []


def undocumented(source: Source) -> Iterator[str]:
    if source.path.stem.startswith("_") and source.path.stem not in ("__init__", "__main__"):
        return
    if not ast.get_docstring(source.tree):
        yield f"{source.name}: the module"
    yield from undocumented_members(source, source.tree)


def undocumented_members(source: Source, parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or is_overload(node):
            continue
        if not ast.get_docstring(node):
            yield f"{source.at(node)}: {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented_members(source, node)


def is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        ast.unparse(decorator) in ("overload", "typing.overload", "override") for decorator in node.decorator_list
    )


def test_modules_stay_small() -> None:
    assert over(MOST_LINES_OF_A_MODULE, OURS) == {}
    assert over(MOST_LINES_OF_A_TEST_MODULE, modules("tests")) == {}


def over(most: int, sources: Iterable[Source]) -> dict[str, int]:
    sizes = {source.name: source.text.count("\n") for source in sources}
    return {name: size for name, size in sizes.items() if size > most}


def test_functions_stay_small() -> None:
    sizes = {
        f"{source.at(node)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for source in (*OURS, *modules("tests"))
        for node in source.functions()
    }
    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_A_FUNCTION} == {}


def test_no_assert_decides_anything() -> None:
    found = [source.at(node) for source in OURS for node in ast.walk(source.tree) if isinstance(node, ast.Assert)]
    assert found == []


def test_switched_off_checks_say_why() -> None:
    assert [where for source in OURS for where in unexplained_switches(source)] == []


def unexplained_switches(source: Source) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        match = SWITCH.match(token.string)
        explained = match is None or re.search(r"[a-z]{3}", match["rest"])
        if not explained or re.search(r"pragma:\s*no\s*(cover|branch)|\b(TODO|FIXME|XXX)\b", token.string):
            yield f"{source.name}:{token.start[0]}: {token.string}"


def test_time_is_injected() -> None:
    found = [
        f"{source.at(node)}: {ast.unparse(node)}"
        for source in OURS
        if not source.name.startswith(READ_THE_CLOCK)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and dotted(node.func)[-2:] in CLOCKS
    ]
    assert found == []


def dotted(node: ast.expr) -> tuple[str, ...]:
    return tuple(ast.unparse(node).split("."))
