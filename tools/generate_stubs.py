"""Generates the client distribution's stubs from ``protos/``.

Usage: generate_stubs.py [OUTPUT]

OUTPUT is the folder that gets ``credbroker/v1``; by default the client's
source folder. `make check` generates into a temporary one and compares.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SOURCES = ROOT / "clients" / "python" / "src"


def main(output: Path) -> int:
    """Run protoc with the Python, gRPC and type plugins."""
    output.mkdir(parents=True, exist_ok=True)
    well_known = str(files("grpc_tools") / "_proto")
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    return int(
        protoc.main(
            [
                "protoc",
                f"-I{PROTOS}",
                f"-I{well_known}",
                f"--python_out={output}",
                f"--grpc_python_out={output}",
                f"--mypy_out=quiet:{output}",
                f"--mypy_grpc_out=quiet:{output}",
                *sources,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES))
