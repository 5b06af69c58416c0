"""Generates the client distribution's stubs from ``protos/``.

Usage: generate_stubs.py [--check]

With ``--check`` nothing is changed: stubs that differ from what the protos
give, that are missing or that no proto gives any more are named.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SOURCES = ROOT / "clients" / "python" / "src"
BIN = Path(sys.executable).parent


def generate(output: Path) -> bool:
    """Run protoc with the Python, gRPC and type plugins; whether it succeeded."""
    well_known = str(files("grpc_tools") / "_proto")
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{well_known}",
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    return int(protoc.main(arguments)) == 0


def stubs(folder: Path) -> dict[str, bytes]:
    """Return the generated files below a folder, by their path in it."""
    found = (path for suffix in ("py", "pyi") for path in folder.rglob(f"*_pb2*.{suffix}"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def check(fresh: dict[str, bytes], present: dict[str, bytes]) -> int:
    """Name the stubs that are out of date; 1 when there are any."""
    stale = sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))
    for name in stale:
        print(f"{name}: {'left over' if name not in fresh else 'differs' if name in present else 'missing'}")
    if stale:
        print("run `make stubs`")
    return 1 if stale else 0


def replace(fresh: dict[str, bytes], present: dict[str, bytes]) -> int:
    """Make the client's stubs what the protos give."""
    for name in present.keys() - fresh.keys():
        (SOURCES / name).unlink()
    for name, content in fresh.items():
        if present.get(name) != content:
            (SOURCES / name).parent.mkdir(parents=True, exist_ok=True)
            (SOURCES / name).write_bytes(content)
    return 0


def main(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        if not generate(Path(folder)):
            return 1
        fresh = stubs(Path(folder))
    return (check if arguments else replace)(fresh, stubs(SOURCES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
