"""The access table lists exactly what is served, and says what the contract says."""

import re
from pathlib import Path

import pytest
from credbroker.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    lock_service_pb2,
    revocation_service_pb2,
    scope_service_pb2,
    status_service_pb2,
    task_service_pb2,
)
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from broker.model import Role
from broker.serve.access import PUBLIC, access_table, check_complete

PROTOS = Path(__file__).parents[3] / "protos" / "credbroker" / "v1"

FILES = (
    audit_service_pb2,
    credential_service_pb2,
    lock_service_pb2,
    revocation_service_pb2,
    scope_service_pb2,
    status_service_pb2,
    task_service_pb2,
    health_pb2,
    reflection_pb2,
)
SERVICES: dict[str, ServiceDescriptor] = {
    service.full_name: service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
}
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def served(*, reflection: bool = False) -> list[ServiceDescriptor]:
    return [service for name, service in SERVICES.items() if reflection or name != REFLECTION]


def test_table_matches_the_contract() -> None:
    check_complete(access_table(reflection=False), served())
    check_complete(access_table(reflection=True), served(reflection=True))


def test_missing_rpcs_are_named() -> None:
    table = {name: rule for name, rule in access_table(reflection=False).items() if "Lock" not in name}
    with pytest.raises(RuntimeError, match=r"LockService/CreateLock, .*LockService/ListLocks missing"):
        check_complete(table, served())


def test_superfluous_rpcs_are_named() -> None:
    table = {**access_table(reflection=False), "credbroker.v1.LockService/BreakLock": frozenset({Role.ADMIN})}
    with pytest.raises(RuntimeError, match="BreakLock superfluous"):
        check_complete(table, served())


def test_reflection_is_in_the_table_only_when_enabled() -> None:
    with pytest.raises(RuntimeError, match="ServerReflectionInfo missing"):
        check_complete(access_table(reflection=False), served(reflection=True))
    with pytest.raises(RuntimeError, match="ServerReflectionInfo superfluous"):
        check_complete(access_table(reflection=True), served())


def test_only_health_and_reflection_are_public() -> None:
    public = {name.split("/")[0] for name, rule in access_table(reflection=True).items() if rule is PUBLIC}
    assert public == {HEALTH, REFLECTION}


def test_no_rule_is_empty() -> None:
    assert [name for name, rule in access_table(reflection=True).items() if rule is not PUBLIC and not rule] == []


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        access_table(reflection=False)["credbroker.v1.TaskService/GetTask"] = PUBLIC  # type: ignore[index]


def documented(proto: Path) -> dict[str, frozenset[Role]]:
    """Read the roles out of the comments: "For agents (their own), admins and auditors (any)."."""
    text = proto.read_text()
    body = text.partition("\nservice ")[2]
    name = f"credbroker.v1.{body.split(' ', 1)[0]}"
    found: dict[str, frozenset[Role]] = {}
    comment = ""
    for line in body.splitlines():
        if line.strip().startswith("//"):
            comment += line.strip().removeprefix("//")
        elif match := re.match(r"\s*rpc (\w+)\(", line):
            found[f"{name}/{match[1]}"] = roles_in(comment)
            comment = ""
    return found


def roles_in(comment: str) -> frozenset[Role]:
    said = " ".join(re.findall(r"For (?:the )?[^.]*\.", comment))
    words = {"agent": Role.AGENT, "admin": Role.ADMIN, "auditor": Role.AUDITOR}
    return frozenset(role for word, role in words.items() if re.search(rf"\b{word}s?\b", said))


@pytest.mark.parametrize("proto", sorted(PROTOS.glob("*_service.proto")), ids=lambda path: path.stem)
def test_table_says_what_the_comments_of_the_contract_say(proto: Path) -> None:
    table = access_table(reflection=False)
    found = documented(proto)
    assert found
    assert {name: table[name] for name in found} == found
