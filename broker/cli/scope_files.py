"""Scope documents in files: found, read and checked as the broker would check them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker.authorize import compile_scope
from broker.cli.failures import MISUSED, Failure
from broker.cli.remote import read_file
from broker.document import ScopeDocument, parse_document
from broker.errors import ScopeDocumentInvalid
from broker.mint import MAPPINGS, check_document
from broker.model import ScopeRecord

SUFFIXES = frozenset({".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class ScopeFile:
    """One scope document.

    Attributes:
        path: Where it was read.
        text: As the admin wrote it; this is what the broker stores.
        document: What it says.
    """

    path: Path
    text: str
    document: ScopeDocument

    @property
    def name(self) -> str:
        """The scope's name."""
        return self.document.metadata.name


def read_scopes(places: Sequence[Path]) -> list[ScopeFile]:
    """Read and check scope documents.

    Args:
        places: Files, and folders that are searched for ``*.yaml`` and
            ``*.yml`` at every depth.

    Returns:
        The documents, by name.

    Raises:
        Failure: with every problem of every file: file, path in it and what
            was expected there.
    """
    found: dict[str, ScopeFile] = {}
    problems: list[str] = []
    for path in _files(places):
        try:
            scope = _read(path)
        except ScopeDocumentInvalid as error:
            problems.extend(f"{path}: {item.field or 'the document'}: {item.description}" for item in error.violations)
            continue
        other = found.setdefault(scope.name, scope)
        if other is not scope:
            problems.append(f"{path}: metadata.name: {scope.name!r} is also the name of {other.path}")
    if problems:
        raise Failure("the scope documents are not valid; nothing was changed", details=problems, exit_code=MISUSED)
    return [found[name] for name in sorted(found)]


def _files(places: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES and path.is_file())
            if not inside:
                raise Failure(f"{place} holds no *.yaml or *.yml file", exit_code=MISUSED)
            files.extend(inside)
        else:
            files.append(place)
    return list(dict.fromkeys(files))


def _read(path: Path) -> ScopeFile:
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8 text", exit_code=MISUSED) from None
    document = parse_document(text, MAPPINGS)
    check_document(document)
    now = datetime.now(UTC)
    compile_scope(ScopeRecord(document.metadata.name, 1, "", text, now, ""), document)
    return ScopeFile(path, text, document)
