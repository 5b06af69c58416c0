import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tools import coverage_gate

GATED = ("broker/attest", "broker/issue.py")


def report(files: Mapping[str, tuple[Sequence[int], Sequence[tuple[int, int]]]]) -> str:
    return json.dumps(
        {"files": {name: {"missing_lines": lines, "missing_branches": arcs} for name, (lines, arcs) in files.items()}}
    )


FULL: tuple[tuple[int, ...], tuple[tuple[int, int], ...]] = ((), ())


def test_full_coverage_passes() -> None:
    text = report({"broker/attest/oidc.py": FULL, "broker/issue.py": FULL})
    assert list(coverage_gate.uncovered(text, GATED)) == []


def test_each_line_and_branch_that_no_test_takes_is_named() -> None:
    text = report({"broker/attest/oidc.py": ([3, 4, 5, 7], [(7, 8), (9, 12), (20, -18)]), "broker/issue.py": FULL})
    assert list(coverage_gate.uncovered(text, GATED)) == [
        "broker/attest/oidc.py:3-5: never run",
        "broker/attest/oidc.py:7: never runs",
        "broker/attest/oidc.py:9: never goes on to line 12",
        "broker/attest/oidc.py:20: never leaves from here",
    ]


def test_what_is_not_gated_may_have_gaps() -> None:
    text = report({"broker/attest/x.py": FULL, "broker/issue.py": FULL, "broker/attestation.py": ([1], [])})
    assert list(coverage_gate.uncovered(text, GATED)) == []


def test_a_gated_path_that_was_not_measured_does_not_pass() -> None:
    text = report({"broker/attest/oidc.py": FULL})
    assert list(coverage_gate.uncovered(text, GATED)) == ["broker/issue.py: not measured at all"]


def test_gaps_decide_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gated = {f"{path}/__init__.py" if "." not in path else path: FULL for path in coverage_gate.GATED}
    file = tmp_path / "coverage.json"
    file.write_text(report(gated))
    assert coverage_gate.main([str(file)]) == 0
    assert capsys.readouterr().out == ""
    file.write_text(report({**gated, "broker/issue.py": ([3], [])}))
    assert coverage_gate.main([str(file)]) == 1
    assert "broker/issue.py:3: never runs" in capsys.readouterr().out


def test_without_a_report_nothing_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage_gate.main([str(tmp_path / "none.json")]) == 1
    assert "left no report" in capsys.readouterr().out
