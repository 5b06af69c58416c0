"""What the architecture tests look at: the project's own files."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "clients" / "python" / "src" / "credbroker" / "v1"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """One module."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its path in the project."""
        return self.path.relative_to(ROOT).as_posix()

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.name}:{node.lineno}"

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


@cache
def modules(folder: str) -> tuple[Source, ...]:
    """Return the hand-written modules below a folder of the project."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return tuple(
        Source(path, text, ast.parse(text))
        for path in paths
        if not path.is_relative_to(GENERATED)
        for text in [path.read_text()]
    )


def server() -> tuple[Source, ...]:
    return modules("broker")


def client() -> tuple[Source, ...]:
    return modules("clients/python/src/credbroker")


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file that is, or is about to be, under version control."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())
