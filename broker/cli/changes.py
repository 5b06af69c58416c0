"""What applying scope files would change, and how that is shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Literal, Protocol, TypeAlias

from credbroker.v1.scope_pb2 import Scope
from rich.text import Text

from broker.cli.scope_files import ScopeFile
from broker.model import JsonValue
from broker.terminal import printable

Action: TypeAlias = Literal["create", "update", "delete", "none"]

_MARKS: dict[str, tuple[str, str]] = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
_LINE_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_ENDS = {"create": "created", "update": "updated", "delete": "deleted"}


class Change(Protocol):
    """Something that would be different afterwards: a scope, a Vault role, a Vault policy."""

    @property
    def action(self) -> Action:
        """What would be done."""
        ...

    @property
    def kind(self) -> str:
        """What kind of thing it is."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def before(self) -> str:
        """What it says now; empty when there is none."""
        ...

    @property
    def after(self) -> str:
        """What it would say; empty when it would be gone."""
        ...


@dataclass(frozen=True, slots=True)
class ScopeChange:
    """One scope that would be different in the broker.

    Attributes:
        etag: Of the version that the plan was made against; empty for new ones.
    """

    action: Action
    name: str
    before: str
    after: str
    etag: str
    kind: Literal["scope"] = "scope"


def plan_scopes(files: Sequence[ScopeFile], current: Iterable[Scope], *, prune: bool) -> list[ScopeChange]:
    """Compare files with what the broker has.

    Args:
        files: The wanted scopes.
        current: The broker's current ones.
        prune: Whether scopes that no file names are to be deleted.
    """
    stored = {scope.name: scope for scope in current}
    wanted = {file.name for file in files}
    changes = [_change(file, stored.get(file.name)) for file in files]
    if prune:
        gone = (stored[name] for name in sorted(stored) if name not in wanted)
        changes.extend(ScopeChange("delete", scope.name, scope.document, "", scope.etag) for scope in gone)
    return changes


def _change(file: ScopeFile, stored: Scope | None) -> ScopeChange:
    if stored is None:
        return ScopeChange("create", file.name, "", file.text, "")
    action: Action = "none" if stored.document == file.text else "update"
    return ScopeChange(action, file.name, stored.document, file.text, stored.etag)


def real(changes: Iterable[Change]) -> list[Change]:
    """Return the changes that change something."""
    return [change for change in changes if change.action != "none"]


def diff(before: str, after: str) -> list[str]:
    """Return the difference of two texts in unified form, without file names.

    Only line feeds end lines, so that another kind of line break, which may
    hide in what looks equal, is a difference that is seen.
    """
    lines = list(unified_diff(_lines(before), _lines(after), lineterm=""))[2:]
    return lines if before and after else [line for line in lines if not line.startswith("@@")]


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [*lines, last, "\\ no line feed at the end"] if last else lines


def render_change(change: Change, where: str) -> Text:
    """Return one change with its difference."""
    mark, style = _MARKS[change.action]
    text = Text(f"{mark} {change.action} {change.kind} {printable(change.name)}", f"bold {style}")
    text.append(f"  ({where})", "dim")
    for line in diff(change.before, change.after):
        text.append("\n    ").append(printable(line), _LINE_STYLES.get(line[:1], ""))
    return text


def summary(changes: Sequence[Change]) -> str:
    """Return how many things would be created, updated and deleted."""
    counts = {action: sum(change.action == action for change in changes) for action in _ENDS}
    return ", ".join(f"{count} to be {_ENDS[action]}" for action, count in counts.items() if count)


def to_value(change: Change, where: str) -> dict[str, JsonValue]:
    """Return a change for programs."""
    return {
        "where": where,
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "diff": "\n".join(diff(change.before, change.after)),
    }
