"""Manifests for Kubernetes: valid, and true to what our programs take, serve and listen on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from api.routes.table import PUBLIC_PATHS
from cluster.sockets import DEFAULT_PORT, session_ports
from cluster.worker.daemon import DRAIN_S
from tests.deploy.commands import DEPLOY, HOUSE, parsed

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict] = [
    made for name in KUSTOMIZATION["resources"]
    for made in yaml.safe_load_all((FOLDER / name).read_text())
]  # fmt: skip
WORKLOADS = {"StatefulSet": "worker", "Deployment": "root"}


def named(kind: str, name: str = "") -> dict:
    [found] = [one for one in OBJECTS if one["kind"] == kind and name in one["metadata"]["name"]]
    return found


def pod(kind: str) -> dict:
    return named(kind)["spec"]["template"]["spec"]


def container(kind: str) -> dict:
    [found] = pod(kind)["containers"]
    return found


def flags_of(kind: str):
    found = container(kind)
    return parsed([*found["command"], *found["args"]])


def probes(kind: str) -> Iterator[tuple[str, dict]]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield name, container(kind)[name]


def test_every_file_is_a_resource_and_follows_kubernetes_own_schema() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    schemas = pytest.importorskip(
        "kubernetes_validate",
        reason="kubernetes-validate is not installed: no schema was looked at",
    )
    for made in OBJECTS:
        schemas.validate(made, schemas.latest_version(), strict=True)


def test_kustomize_builds_all_of_it() -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed: the kustomization was only read")
    done = subprocess.run([program, "kustomize", str(FOLDER)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(OBJECTS)
    for one in built:
        if one["kind"] in WORKLOADS:
            chosen = one["spec"]["selector"]["matchLabels"]
            assert chosen.items() <= one["spec"]["template"]["metadata"]["labels"].items()
            assert chosen["app.kubernetes.io/part-of"] == "dllama"


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_pod_starts_a_program_with_flags_that_exist_and_selectors_find_it(kind: str) -> None:
    flags_of(kind)
    labels = named(kind)["spec"]["template"]["metadata"]["labels"]
    assert named(kind)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service = (
        named("Service", "worker")
        if kind == "StatefulSet"
        else OBJECTS[
            next(i for i, one in enumerate(OBJECTS) if one["metadata"]["name"] == "dllama")
        ]
    )
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container(kind)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    assert list(ports.values()) == [flags_of(kind).port]
    for _, probe in probes(kind):
        assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in ports


def test_the_root_knows_every_worker_by_the_name_that_its_pod_has() -> None:
    workers = named("StatefulSet")
    name, service = workers["metadata"]["name"], workers["spec"]["serviceName"]
    assert service == named("Service", "worker")["metadata"]["name"]
    assert named("Service", "worker")["spec"]["clusterIP"] == "None"
    pods = [f"{name}-{i}.{service}" for i in range(workers["spec"]["replicas"])]
    assert list(flags_of("Deployment").workers) == pods
    assert flags_of("StatefulSet").port == DEFAULT_PORT


def test_probes_of_the_root_ask_routes_that_need_no_key_for_what_they_mean() -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in probes("Deployment")}
    assert paths == {"startupProbe": "/live", "readinessProbe": "/health", "livenessProbe": "/live"}
    assert set(paths.values()) <= PUBLIC_PATHS


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_pod_has_time_to_end(kind: str) -> None:
    before = container(kind).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    pause_s = float(before[1]) if before else 0.0
    drain_s = DRAIN_S if kind == "StatefulSet" else flags_of(kind).drain_timeout
    assert pod(kind)["terminationGracePeriodSeconds"] >= pause_s + drain_s + 5


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_pod_may_do_little_and_writes_only_where_it_must(kind: str) -> None:
    spec, only = pod(kind), container(kind)
    user = re.findall(r"^USER (\d+):(\d+)$", (HOUSE / "Dockerfile").read_text(), re.M)
    context = spec["securityContext"]
    assert (
        context["runAsNonRoot"]
        and [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user
    )
    own = only["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]} and not spec["automountServiceAccountToken"]
    mounted = {one["name"]: one["mountPath"] for one in only["volumeMounts"]}
    assert {"/cache", "/state", "/tmp"} <= set(mounted.values())
    claims = named(kind)["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in spec["volumes"]} | {c["metadata"]["name"] for c in claims}
    assert set(mounted) == volumes
    if kind == "Deployment":
        assert str(flags_of(kind).models_dir) in mounted.values()


@pytest.mark.parametrize("kind", WORKLOADS)
def test_no_service_sets_variables_that_mean_something_else(kind: str) -> None:
    """The service `dllama` would be DLLAMA_PORT=tcp://... in every pod."""
    assert pod(kind)["enableServiceLinks"] is False


def test_secrets_are_those_that_the_document_makes() -> None:
    shown = (HOUSE / "docs" / "deploy.md").read_text()
    for kind in WORKLOADS:
        for variable in container(kind)["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret is not None:
                assert f"create secret generic {secret['name']}" in shown
                assert f"--from-literal={secret['key']}=" in shown


def test_policies_let_in_the_ports_that_programs_listen_on() -> None:
    [nodes] = named("NetworkPolicy", "nodes")["spec"]["ingress"]
    first, last = DEFAULT_PORT, session_ports(DEFAULT_PORT)[0]
    assert nodes["ports"] == [{"port": first, "endPort": last}]
    [api] = named("NetworkPolicy", "api")["spec"]["ingress"]
    assert api["ports"] == [{"port": flags_of("Deployment").port}]
