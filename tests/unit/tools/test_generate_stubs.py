from pathlib import Path

import pytest

from tools import generate_stubs

FRESH = {"v1/a_pb2.py": b"1", "v1/b_pb2.pyi": b"2"}


@pytest.mark.parametrize(
    ("present", "line"),
    [
        (FRESH | {"v1/a_pb2.py": b"0"}, "v1/a_pb2.py: differs"),
        ({"v1/a_pb2.py": b"1"}, "v1/b_pb2.pyi: missing"),
        (FRESH | {"v1/gone_pb2_grpc.py": b""}, "v1/gone_pb2_grpc.py: left over"),
    ],
)
def test_stubs_that_are_out_of_date_are_named(
    present: dict[str, bytes], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate_stubs.check(FRESH, present) == 1
    assert line in capsys.readouterr().out.splitlines()


def test_stubs_that_are_up_to_date_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_stubs.check(FRESH, dict(FRESH)) == 0
    assert capsys.readouterr().out == ""


def test_replacing_leaves_what_the_protos_give_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_stubs, "SOURCES", tmp_path)
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "old_pb2.py").touch()
    (tmp_path / "v1" / "a_pb2.py").touch()
    (tmp_path / "written.py").write_text("by hand")
    assert generate_stubs.replace(FRESH, generate_stubs.stubs(tmp_path)) == 0
    assert generate_stubs.stubs(tmp_path) == FRESH
    assert (tmp_path / "written.py").read_text() == "by hand"
