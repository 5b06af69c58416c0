"""What the contract says beside what buf checks."""

import re
from pathlib import Path

import pytest

from broker.model import Role
from broker.serve.access import access_table
from tests.architecture.sources import ROOT

SERVICES = sorted((ROOT / "protos").rglob("*_service.proto"))
RPC = re.compile(r"(?P<comment>(?:^ *//.*\n)*) *rpc (?P<name>\w+)\(", re.MULTILINE)
FOR = re.compile(r"\bFor (?P<whom>[^.]*)\.")


@pytest.mark.parametrize("file", SERVICES, ids=lambda file: file.stem)
def test_each_call_says_who_may_make_it_and_the_server_agrees(file: Path) -> None:
    said: dict[str, object] = {
        f"credbroker.v1.{service_of(file)}/{name}": roles for name, roles in roles_in(file.read_text()).items()
    }
    assert said
    assert said == {name: rule for name, rule in access_table(reflection=False).items() if name in said}


def roles_in(text: str) -> dict[str, set[Role]]:
    return {match["name"]: named(re.sub(r"\s*// *", " ", match["comment"])) for match in RPC.finditer(text)}


def named(comment: str) -> set[Role]:
    whom = " ".join(match["whom"] for match in FOR.finditer(comment))
    return {role for role in Role if re.search(rf"\b{role}s?\b", whom)}


def service_of(file: Path) -> str:
    return "".join(part.capitalize() for part in file.stem.split("_"))
