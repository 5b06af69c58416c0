import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import constraints
from tools.constraints import HEADER, problems

DIGEST = "0" * 64
PINS = f"""{HEADER}\
alpha==1.2 \\
    --hash=sha256:{DIGEST} \\
    --hash=sha256:{DIGEST}
beta==2.0 ; sys_platform != 'win32' \\
    --hash=sha256:{DIGEST}
    # via alpha, gamma-ray
"""


def found(text: str, *wanted: str) -> list[str]:
    return list(problems(text, map(Requirement, wanted)))


def test_pins_that_satisfy_the_requirements_pass() -> None:
    assert found(PINS, "Alpha[extra]>=1,<2", "beta") == []


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (("alpha", "delta>=1"), "delta>=1 is not pinned"),
        (("alpha>=1.3",), "alpha is pinned to 1.2, but alpha>=1.3 is required"),
        ((), "alpha is pinned and nothing requires it"),
    ],
)
def test_a_requirement_that_has_moved_on_is_named(wanted: tuple[str, ...], problem: str) -> None:
    assert found(PINS, *wanted) == [problem]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "--extra-index-url=https://packages.example/simple",
        "--find-links /srv/wheels",
        "--trusted-host packages.example",
        "-e ./somewhere",
        "gamma @ file:///srv/gamma.whl",
        "# from https://packages.example/simple",
        "gamma>=1",
    ],
)
def test_nothing_but_pins_may_stand_in_the_file(line: str) -> None:
    assert found(f"{PINS}{line}\n", "alpha") == [f"holds a line that is no pin: {line!r}"]


def test_a_pin_without_hashes_is_named() -> None:
    assert found(f"{PINS}gamma==1\n    # via alpha\n", "alpha") == ["gamma 1 has no hash"]


def test_another_header_is_named() -> None:
    assert found(PINS.replace("do not\n# edit", "do\n# edit"), "alpha")[0] == "does not begin with the usual header"


def test_distributions_of_one_project_do_not_require_one_another(tmp_path: Path) -> None:
    for name, requirement in (("first", "second>=1"), ("second", "alpha>=1")):
        (tmp_path / f"{name}.toml").write_text(
            f'[build-system]\nrequires = ["builder"]\n[project]\nname = "{name}"\ndependencies = ["{requirement}"]\n'
            f'[project.optional-dependencies]\nextra = ["{name}[other]", "gamma"]\n'
        )
    read = constraints.requirements([tmp_path / "first.toml", tmp_path / "second.toml"])
    assert sorted(map(str, read)) == ["alpha>=1", "builder", "builder", "gamma", "gamma"]
    read = constraints.requirements([tmp_path / "first.toml", tmp_path / "second.toml"], development=False)
    assert [str(requirement) for requirement in read] == ["alpha>=1"]


def test_the_runtime_is_what_is_wanted_and_what_that_needs() -> None:
    hashed = f" \\\n    --hash=sha256:{DIGEST}\n"
    text = f"{HEADER}a==1{hashed}b==1{hashed}    # via c, tool\nc==1{hashed}    # via a\ntool==1{hashed}"
    pins = constraints.runtime(text, [Requirement("A")])
    assert re.findall("^[a-z]+==1", pins, re.MULTILINE) == ["a==1", "b==1", "c==1"]
    assert pins.count(DIGEST) == 3


def test_the_project_is_pinned() -> None:
    assert list(problems(constraints.CONSTRAINTS.read_text(), constraints.requirements())) == []
