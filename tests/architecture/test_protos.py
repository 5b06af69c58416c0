"""What the contract says beside what buf checks."""

import re

import pytest

from tests.architecture.sources import ROOT

FILES = sorted((ROOT / "protos").rglob("*.proto"))
RPC = re.compile(r"(?P<comment>(?:^ *//.*\n)+) *rpc (?P<name>\w+)\(", re.MULTILINE)
WHO = re.compile(r"\bFor (?:the )?(agents?|admins|approvers|auditors)\b")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_call_says_who_may_make_it(file: "object") -> None:
    text = (ROOT / str(file)).read_text()
    commented = {match["name"]: re.sub(r"\n *// *", " ", match["comment"]) for match in RPC.finditer(text)}
    assert commented.keys() == set(re.findall(r"^ *rpc (\w+)\(", text, re.MULTILINE))
    assert [name for name, comment in commented.items() if not WHO.search(comment)] == []
