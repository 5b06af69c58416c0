"""The decisions in docs/adr are complete, numbered and listed."""

import re
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

FOLDER = ROOT / "docs" / "adr"
DECISIONS = sorted(FOLDER.glob("[0-9]*.md"))
ROW = re.compile(
    r"^\| \[(?P<number>\d{4})\]\((?P<file>[^)]+)\) \| (?P<title>[^|]+) \| (?P<status>[^|]+) \|$", re.MULTILINE
)


def test_numbers_follow_one_another() -> None:
    assert [file.name[:4] for file in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]


def test_the_index_lists_each_under_its_title() -> None:
    rows = [match.groupdict() for match in ROW.finditer((FOLDER / "README.md").read_text())]
    titles = [file.read_text().partition("\n")[0] for file in DECISIONS]
    assert [row["file"] for row in rows] == [file.name for file in DECISIONS]
    assert [f"# {row['number']}. {row['title'].strip()}" for row in rows] == titles


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.name[:4])
def test_each_says_why_what_and_what_else(file: Path) -> None:
    headings = re.findall(r"^## (.+)$", file.read_text(), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]
