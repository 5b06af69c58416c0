"""Keeps ``constraints.txt``: the exact version and hashes of everything that is installed.

Usage: constraints.py compile [UV OPTIONS]
       constraints.py check
       constraints.py runtime

``compile`` resolves the requirements of both distributions, their extras and
their build backends for every platform and Python version that they support.
Versions that are pinned already are kept where they still fit; ``--upgrade``
takes the newest of all. ``check`` needs no network: it says where the file and
the requirements have come apart. ``runtime`` prints the pins that a production
installation needs, without those of extras and build backends.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = (ROOT / "clients" / "python" / "pyproject.toml", ROOT / "pyproject.toml")
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST_PYTHON = "3.11"

HEADER = """\
# Exact versions, with the hashes of their files for every platform. Written by
# `make constraints` from the requirements in both pyproject.toml files; do not
# edit.
"""

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))?(?P<more> \\)?")
_HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}(?P<more> \\)?")
_VIA = re.compile(r" {4}# via (?P<names>[A-Za-z0-9._, -]+)")


@dataclass(slots=True)
class Pin:
    """One pinned version.

    Attributes:
        name: As PyPI normalizes it.
        version: The one that is installed.
        lines: Itself, its hashes and what needs it, as they stand in the file.
        hashes: How many files it may be installed from.
        needed_by: What else that is pinned needs it.
    """

    name: NormalizedName
    version: str
    lines: list[str]
    hashes: int = 0
    needed_by: set[NormalizedName] = field(default_factory=set)


def requirements(projects: Iterable[Path] = PROJECTS, *, development: bool = True) -> list[Requirement]:
    """Return what the projects require, without one another.

    Args:
        projects: Their pyproject.toml files.
        development: Whether extras and build backends count.
    """
    own: set[NormalizedName] = set()
    found: list[Requirement] = []
    for file in projects:
        content = tomllib.loads(file.read_text())
        project = content["project"]
        own.add(canonicalize_name(project["name"]))
        texts = [*project.get("dependencies", ())]
        if development:
            texts.extend(content["build-system"]["requires"])
            for extra in project.get("optional-dependencies", {}).values():
                texts.extend(extra)
        found.extend(map(Requirement, texts))
    return [requirement for requirement in found if canonicalize_name(requirement.name) not in own]


def read_pins(text: str) -> Iterator[Pin | str]:
    """Yield the pins, and as text each line that is neither a pin nor belongs to one."""
    pin: Pin | None = None
    for line in text.removeprefix(HEADER).splitlines():
        if match := _PIN.fullmatch(line):
            if pin is not None:
                yield pin
            pin = Pin(canonicalize_name(match["name"]), match["version"], [line])
        elif pin is not None and _HASH.fullmatch(line):
            pin.hashes += 1
            pin.lines.append(line)
        elif pin is not None and (match := _VIA.fullmatch(line)):
            pin.needed_by.update(map(canonicalize_name, match["names"].split(", ")))
            pin.lines.append(line)
        else:
            yield line
    if pin is not None:
        yield pin


def runtime(text: str, wanted: Iterable[Requirement]) -> str:
    """Return the pins of what is wanted and of everything that it needs."""
    pins = [item for item in read_pins(text) if isinstance(item, Pin)]
    needed = {canonicalize_name(requirement.name) for requirement in wanted}
    while more := {pin.name for pin in pins if pin.needed_by & needed} - needed:
        needed |= more
    return "".join(f"{line}\n" for pin in pins if pin.name in needed for line in pin.lines)


def problems(text: str, wanted: Iterable[Requirement]) -> Iterator[str]:
    """Yield where the constraints and the requirements have come apart."""
    if not text.startswith(HEADER):
        yield "does not begin with the usual header"
    pins: dict[NormalizedName, list[Pin]] = {}
    for item in read_pins(text):
        if isinstance(item, str):
            yield f"holds a line that is no pin: {item!r}"
        else:
            pins.setdefault(item.name, []).append(item)
    yield from _pins_without_hashes(pins)
    named: set[NormalizedName] = set()
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        named.add(name)
        if name not in pins:
            yield f"{requirement} is not pinned"
        for pin in pins.get(name, ()):
            if not requirement.specifier.contains(pin.version, prereleases=True):
                yield f"{name} is pinned to {pin.version}, but {requirement} is required"
    for name, versions in pins.items():
        if name not in named and not any(pin.needed_by for pin in versions):
            yield f"{name} is pinned and nothing requires it"


def _pins_without_hashes(pins: Mapping[NormalizedName, list[Pin]]) -> Iterator[str]:
    for versions in pins.values():
        for pin in versions:
            if not pin.hashes:
                yield f"{pin.name} {pin.version} has no hash"


def check() -> int:
    """Print what is wrong with the constraints; 1 when something is."""
    found = list(problems(CONSTRAINTS.read_text(), requirements()))
    for problem in found:
        print(f"{CONSTRAINTS.name}: {problem}")
    if found:
        print("run `make constraints`")
    return 1 if found else 0


def compile_pins(options: Iterable[str]) -> int:
    """Write the constraints anew."""
    command = [
        *(
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "compile",
            "-",
            "--output-file",
            str(CONSTRAINTS),
            "--quiet",
            "--no-config",
            "--system-certs",
        ),
        *("--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-build"),
        *("--no-header", "--annotation-style", "line", *options),
    ]
    wanted = "".join(f"{requirement}\n" for requirement in requirements())
    status = subprocess.run(command, input=wanted, stdout=subprocess.DEVNULL, text=True, check=False).returncode
    if status == 0:
        CONSTRAINTS.write_text(HEADER + CONSTRAINTS.read_text())
    return status


def main(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    match arguments:
        case ["check"]:
            return check()
        case ["compile", *options]:
            return compile_pins(options)
        case ["runtime"]:
            print(runtime(CONSTRAINTS.read_text(), requirements(development=False)), end="")
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
