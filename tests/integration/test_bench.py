"""`make bench` in small: every scenario still runs, and the replies it checks are right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_scenario_runs(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bench",
            "--quick",
            "--all",
            "--database",
            "postgres",
            "--workers",
            "1",
            "--json",
            str(report),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert [result["scenario"] for result in results] == [*SCENARIOS]
    assert all(figure["seen"] >= 0 for result in results for figure in result["figures"])
