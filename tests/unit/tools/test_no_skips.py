import re
from pathlib import Path

import pytest

from tests.fixtures import no_skips

pytest_plugins = ["pytester"]

SKIPPED = "import pytest\n\ndef test_one(): pytest.skip('no database')\n\ndef test_two(): pass\n"
EXPECTED_TO_FAIL = "import pytest\n\n@pytest.mark.xfail(reason='broken')\ndef test_one(): assert False\n"
PASSES_ALL_THE_SAME = "import pytest\n\n@pytest.mark.xfail(reason='broken')\ndef test_one(): pass\n"
WHOLE_MODULE = "import pytest\n\npytest.skip('not here', allow_module_level=True)\n\ndef test_one(): pass\n"
OPTIONS = ("-q", "-p", "tests.fixtures.no_skips", "-o", "asyncio_default_fixture_loop_scope=function")

CASES = pytest.mark.parametrize(
    ("source", "line"),
    [
        pytest.param(SKIPPED, "test_given.py::test_one: Skipped: no database", id="skipped"),
        pytest.param(EXPECTED_TO_FAIL, "test_given.py::test_one: broken", id="xfailed"),
        pytest.param(PASSES_ALL_THE_SAME, "test_given.py::test_one: broken", id="xpassed"),
        pytest.param(WHOLE_MODULE, "test_given.py: Skipped: not here", id="module"),
    ],
)


@CASES
def test_a_test_that_was_not_carried_out_fails_the_session(pytester: pytest.Pytester, source: str, line: str) -> None:
    pytester.makepyfile(test_given=source, test_other="def test_good(): pass\n")
    result = pytester.runpytest_inprocess(*OPTIONS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([line])


@CASES
def test_and_so_it_does_when_the_session_is_distributed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, line: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(no_skips.__file__).parents[2]))
    pytester.makepyfile(test_given=source, test_other="def test_good(): pass\n")
    result = pytester.runpytest_subprocess(*OPTIONS, "-n", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([line])


def test_what_is_listed_may_be_skipped(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_skips, "ALLOWED", {"test_given.py::test_one": "a reason"})
    pytester.makepyfile(test_given=SKIPPED)
    result = pytester.runpytest_inprocess(*OPTIONS)
    assert result.ret == pytest.ExitCode.OK


def test_the_last_line_stays_the_summary(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_given=SKIPPED)
    result = pytester.runpytest_inprocess(*OPTIONS)
    assert re.match(r"1 passed, 1 skipped.* in [0-9.]+s", result.outlines[-1])


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("tests/a.py::test_one", True),
        ("tests/a.py::test_one[case]", True),
        ("tests/b.py::test_any", True),
        ("tests/c/d.py::test_any", True),
        ("tests/a.py::test_one_more", False),
        ("tests/a.py::test_two", False),
        ("tests/b.pyx::test_any", False),
        ("tests/cc/d.py::test_any", False),
    ],
)
def test_a_listed_name_covers_what_stands_in_it(name: str, allowed: bool) -> None:
    listed = {"tests/a.py::test_one": "", "tests/b.py": "", "tests/c/": ""}
    assert no_skips.is_allowed(name, listed) is allowed
