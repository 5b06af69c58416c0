"""The deployment files agree with themselves and with the broker; no cluster is at hand to ask."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

Manifest = dict[str, Any]


def manifests() -> Iterator[Manifest]:
    for file in sorted(KUBERNETES.glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


def only(kind: str, name: str) -> Manifest:
    (found,) = [item for item in manifests() if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


WORKLOADS = [only("Deployment", "broker"), only("Job", "migrate")]
workloads = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda item: item["metadata"]["name"])


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def test_every_manifest_is_listed_or_applied_by_itself() -> None:
    listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    present = {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert present - listed == {"migrate.yaml"}
    assert listed - present == set()


@workloads
def test_pods_meet_the_restricted_standard(workload: Manifest) -> None:
    spec = pod(workload)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


@workloads
def test_mounts_name_volumes(workload: Manifest) -> None:
    spec = pod(workload)
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_everything_selects_the_broker_s_pods() -> None:
    labels = WORKLOADS[0]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        WORKLOADS[0]["spec"]["selector"]["matchLabels"],
        only("Service", "broker")["spec"]["selector"],
        only("PodDisruptionBudget", "broker")["spec"]["selector"]["matchLabels"],
        only("NetworkPolicy", "broker")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4


def test_ports_are_those_of_the_configuration() -> None:
    (container,) = pod(WORKLOADS[0])["containers"]
    listen = yaml.safe_load(only("ConfigMap", "broker")["data"]["broker.yaml"])["listen"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {name: int(listener["address"].rpartition(":")[2]) for name, listener in listen.items()}
    assert {port["targetPort"] for port in only("Service", "broker")["spec"]["ports"]} == ports.keys()
    ingress = only("NetworkPolicy", "broker")["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} == ports.keys()


def test_files_of_the_configuration_are_mounted() -> None:
    (container,) = pod(WORKLOADS[0])["containers"]
    mounts = tuple(f"{mount['mountPath']}/" for mount in container["volumeMounts"])
    values = leaves(yaml.safe_load(only("ConfigMap", "broker")["data"]["broker.yaml"]))
    files = [value for value in values if isinstance(value, str) and value.startswith("/")]
    assert files
    assert [file for file in files if not file.startswith(mounts)] == []


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for nested in value.values():
            yield from leaves(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from leaves(nested)
    else:
        yield value


def test_there_is_time_to_drain() -> None:
    spec = pod(WORKLOADS[0])
    (container,) = spec["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    # limits.drain_timeout is 20 s by default
    assert spec["terminationGracePeriodSeconds"] > pause + 20


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for workload in WORKLOADS for container in pod(workload)["containers"]}
    assert images == {f"credbroker:{version}"}


def test_probes_run_what_the_image_holds() -> None:
    (container,) = pod(WORKLOADS[0])["containers"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    commands = [container[f"{name}Probe"]["exec"]["command"] for name in ("startup", "readiness", "liveness")]
    commands.append(compose["services"]["broker"]["healthcheck"]["test"][1:])
    containerfile = (DEPLOY / "Containerfile").read_text()
    for python, program, question in commands:
        assert python == "/opt/credbroker/bin/python"
        assert f" deploy/healthcheck.py {program}" in containerfile
        assert question in ("ready", "alive")


def test_compose_refers_to_what_it_defines() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert set(service["networks"]) <= compose["networks"].keys()
        assert set(service.get("depends_on", ())) <= compose["services"].keys()
        assert set(service.get("secrets", ())) <= compose["secrets"].keys()
        named = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
        assert named <= compose["volumes"].keys()


def test_the_image_is_built_from_what_the_build_is_given() -> None:
    given = (ROOT / ".dockerignore").read_text()
    for needed in ("broker", "clients", "constraints.txt", "pyproject.toml", "LICENSE", "README.md"):
        assert f"!{needed}\n" in given
        assert (ROOT / needed).exists()
