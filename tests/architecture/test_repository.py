"""What the files of the project must not hold, and that what they point at exists."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.architecture.sources import ROOT, project_files

MOST_BYTES = 1024 * 1024
# Written in pieces, so that this file is not among what it finds.
FORBIDDEN = {
    "a package index": re.compile(r"(?:py" r"pi\.org/(?:simple|pypi)|python" r"hosted\.org|/simple/[a-z0-9-]+/)"),
    "a folder of one machine": re.compile(r"(?<![\w.$}])/(?:wo" r"rk|ro" r"ot|ho" r"me)/"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE " r"KEY-----\s+[A-Za-z0-9+/]{16}"),
    "a Vault token": re.compile(r"\b(?:hv" r"[sb]|[sb])\.[A-Za-z0-9_-]{24,}"),
}
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PATH = re.compile(r"`(?P<path>(?:broker|clients|deploy|docs|protos|tests|tools)/[\w./-]+)`")
HEADING = re.compile(r"^#{1,6} (?P<text>.+?) *#*$", re.MULTILINE)


def texts() -> Iterator[tuple[str, str]]:
    for path in project_files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text()
        except UnicodeDecodeError:
            continue


def test_files_are_of_a_readable_size() -> None:
    assert [path.name for path in project_files() if path.stat().st_size > MOST_BYTES] == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    # Tests make up tokens to see what becomes of them.
    looked_at = ((name, text) for name, text in texts() if what != "a Vault token" or not name.startswith("tests/"))
    assert [f"{name}: {match[0]}" for name, text in looked_at for match in FORBIDDEN[what].finditer(text)] == []


def test_text_ends_with_one_newline_and_has_no_carriage_returns() -> None:
    bad = [name for name, text in texts() if text and (not text.endswith("\n") or "\r" in text)]
    assert bad == []


def test_links_between_documents_lead_somewhere() -> None:
    documents = {name: text for name, text in texts() if name.endswith(".md")}
    assert [f"{name}: {target}" for name, text in documents.items() for target in dead_links(ROOT / name, text)] == []


def test_documents_name_files_that_exist() -> None:
    missing = [
        f"{name}: {match['path']}"
        for name, text in texts()
        if name.endswith(".md")
        for match in PATH.finditer(text)
        if not (ROOT / match["path"]).exists()
    ]
    assert missing == []


def dead_links(file: Path, text: str) -> Iterator[str]:
    for match in LINK.finditer(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        aim = (file.parent / unquote(path)).resolve() if path else file
        if not aim.exists() or (fragment and aim.suffix == ".md" and fragment not in anchors(aim.read_text())):
            yield target


def anchors(text: str) -> set[str]:
    """Return the fragments of a document's headings, as GitHub makes them."""
    plain = (re.sub(r"[^\w\- ]", "", match["text"].lower()) for match in HEADING.finditer(text))
    return {text.replace(" ", "-") for text in plain}


def test_shell_scripts_are_readable_by_their_shell() -> None:
    for path in project_files():
        first = path.read_bytes()[:40].partition(b"\n")[0]
        if re.match(rb"#!.*\b(ba)?sh$", first):
            shell = "bash" if first.endswith(b"bash") else "sh"
            assert subprocess.run([shell, "-n", str(path)], check=False).returncode == 0, path
