import pytest

from tools import check
from tools.check import Check

PASSES = Check("passes", ("python", "-c", "print('quiet')"))
FAILS = Check("fails", ("python", "-c", "print('why'); raise SystemExit(3)"))
MISSING = Check("missing", ("no-such-program-anywhere",))


def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *checks: Check, names: tuple[str, ...] = ()
) -> tuple[int, str]:
    monkeypatch.setattr(check, "CHECKS", checks)
    status = check.main(names)
    return status, capsys.readouterr().out


def test_every_check_runs_even_when_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = outcome(monkeypatch, capsys, FAILS, MISSING, PASSES)
    assert status == 1
    assert "why" in output
    assert "ok      passes" in output
    assert output.endswith("failed: fails, missing\n")


def test_checks_that_pass_show_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = outcome(monkeypatch, capsys, PASSES)
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == ["ok", "all"]


def test_names_choose_checks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(monkeypatch, capsys, FAILS, PASSES, names=("passes",))[0] == 0
    assert outcome(monkeypatch, capsys, FAILS, PASSES, names=("other",))[0] == 2
