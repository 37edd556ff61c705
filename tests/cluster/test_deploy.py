"""What stands in cluster/deploy against its schemas, and against itself: names, ports, mounts, versions, secrets."""

import copy
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from prunus import configs
from prunus.service.api.auth import _OPEN_PATHS
from prunus.service.doctor.lock import parse_lock
from prunus.service.scheduling.retries import RETRY_BUDGETS
from prunus.service.settings import DEFAULT_PORT, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster/deploy"
TEXT = (DEPLOY / "kuberay.yaml").read_text()
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(TEXT))
RAYCLUSTER_SCHEMA = json.loads((Path(__file__).parent / "schemas/raycluster.json").read_text())
RAY_UP = yaml.safe_load((DEPLOY / "ray_cluster.yaml").read_text())
KUBERNETES = "1.33"


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in DOCUMENTS if document["kind"] == kind]


def named(kind: str, name: str) -> dict[str, Any]:
    return next(document for document in of_kind(kind) if document["metadata"]["name"] == name)


RAY = of_kind("RayCluster")[0]


def ray_templates() -> dict[str, dict[str, Any]]:
    groups = {group["groupName"]: group["template"] for group in RAY["spec"]["workerGroupSpecs"]}
    return {"head": RAY["spec"]["headGroupSpec"]["template"], **groups}


def pods() -> dict[str, dict[str, Any]]:
    """Pod spec by name of who makes it."""
    found = {f"ray-{name}": template["spec"] for name, template in ray_templates().items()}
    for document in [*of_kind("Deployment"), *of_kind("StatefulSet")]:
        found[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
    return found


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods().items():
        for container in pod["containers"]:
            yield name, container


def pin(package: str) -> str:
    """The release in the lock file."""
    return parse_lock((ROOT / "requirements.lock").read_text())[package]


# Schemas


def test_the_ray_cluster_fits_kuberays_fields() -> None:
    jsonschema.validate(RAY, RAYCLUSTER_SCHEMA)


@pytest.mark.parametrize("path", ["spec.workerGroup", "spec.headGroupSpec.image", "spec.authOptions.token"])
def test_the_schema_of_the_ray_cluster_refuses_an_unknown_field(path: str) -> None:
    broken = copy.deepcopy(RAY)
    *owners, key = path.split(".")
    place = broken
    for owner in owners:
        place = place[owner]
    place[key] = "x"
    with pytest.raises(jsonschema.ValidationError, match=key):
        jsonschema.validate(broken, RAYCLUSTER_SCHEMA)


def kubernetes_documents() -> list[Any]:
    plain = [document for document in DOCUMENTS if document["kind"] != "RayCluster"]
    ray = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        for name, template in ray_templates().items()
    ]
    return [pytest.param(d, id=f"{d['kind']}-{d['metadata']['name']}") for d in [*plain, *ray]]


@pytest.mark.parametrize("document", kubernetes_documents())
def test_kubernetes_takes_the_document(document: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="comes with the extra dev")
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_kubernetes_check_can_fail() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="comes with the extra dev")
    broken = copy.deepcopy(named("Deployment", "prunus-server"))
    broken["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="enviroment"):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def ray_up_schema() -> Any:
    return json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())


def test_ray_up_takes_the_file() -> None:
    jsonschema.validate(RAY_UP, ray_up_schema())
    with pytest.raises(jsonschema.ValidationError, match="min_wrkers"):
        jsonschema.validate({**RAY_UP, "min_wrkers": 1}, ray_up_schema())


@pytest.mark.cluster
def test_rays_own_check_takes_the_file_with_its_defaults_filled_in() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(RAY_UP))
    validate_config(prepared)
    assert prepared["provider"]["worker_ips"] == RAY_UP["provider"]["worker_ips"]
    assert prepared["max_workers"] == len(RAY_UP["provider"]["worker_ips"])


# Names, ports, mounts


def test_everything_lies_in_our_namespace() -> None:
    for document in DOCUMENTS:
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "prunus"


def test_a_service_finds_its_pods_and_their_ports() -> None:
    for service in of_kind("Service"):
        selector = service["spec"]["selector"]
        [target] = [
            d
            for d in [*of_kind("Deployment"), *of_kind("StatefulSet")]
            if d["spec"]["template"]["metadata"]["labels"] == selector
        ]
        assert target["spec"]["selector"]["matchLabels"] == selector
        ports = {p["name"]: p["containerPort"] for p in target["spec"]["template"]["spec"]["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_every_address_in_env_and_args_is_a_service_and_its_port() -> None:
    known = {(s["metadata"]["name"], port["port"]) for s in of_kind("Service") for port in s["spec"]["ports"]}
    # KubeRay makes this one, and calls it after the cluster.
    head = RAY["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    known |= {(f"{RAY['metadata']['name']}-head-svc", port["containerPort"]) for port in head["ports"]}
    used = set()
    for _, container in containers():
        words = [*container.get("args", []), *(e["value"] for e in container.get("env", []) if "value" in e)]
        for word in words:
            used |= {(host, int(port)) for host, port in re.findall(r"(?://|@)(?:[a-z]+@)?([a-z0-9-]+):(\d+)", word)}
    assert len(used) == 3
    assert used <= known


def test_the_ports_are_those_of_the_programs() -> None:
    server = named("Deployment", "prunus-server")["spec"]["template"]["spec"]["containers"][0]
    assert [port["containerPort"] for port in server["ports"]] == [DEFAULT_PORT]
    mlflow = named("Deployment", "prunus-mlflow")["spec"]["template"]["spec"]["containers"][0]
    assert f"--port={mlflow['ports'][0]['containerPort']}" in mlflow["args"]
    assert any("prunus-mlflow:5000" in word for word in mlflow["args"] if word.startswith("--allowed-hosts="))


def test_the_server_reads_its_environment_as_meant(tmp_path: Path) -> None:
    container = named("Deployment", "prunus-server")["spec"]["template"]["spec"]["containers"][0]
    environ = {entry["name"]: entry.get("value", "secret") for entry in container["env"]}
    unknown = [n for n in environ if n.startswith("PRUNUS_") and n[7:].lower() not in Settings.model_fields]
    assert unknown == []
    settings = Settings.load(environ, home=tmp_path)
    assert (settings.port, settings.storage, settings.embedded) == (8711, Path("/prunus"), False)
    assert settings.token_file == Path("/etc/prunus/api/token")
    assert settings.store.startswith("postgresql+psycopg://prunus@prunus-postgres:5432/")


def test_the_shared_volume_has_the_same_path_in_every_pod_that_reads_jobs() -> None:
    claim = of_kind("PersistentVolumeClaim")[0]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    shared = set()
    for name, container in containers():
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pods()[name].get("volumes", [])
            if "persistentVolumeClaim" in volume
        }
        for mount in container["volumeMounts"]:
            if claims.get(mount["name"]) == claim["metadata"]["name"]:
                shared.add((name, mount["mountPath"]))
    readers = ["ray-head", "ray-cpu", "ray-gpu", "prunus-server", "prunus-mlflow"]
    assert shared == {(name, "/prunus") for name in readers}


def test_every_mount_has_its_volume() -> None:
    for name, container in containers():
        known = {volume["name"] for volume in pods()[name].get("volumes", [])}
        if name == "prunus-postgres":
            claims = named("StatefulSet", name)["spec"]["volumeClaimTemplates"]
            known |= {claim["metadata"]["name"] for claim in claims}
        assert {mount["name"] for mount in container["volumeMounts"]} <= known


# Versions


def test_images_have_versions_and_they_are_ours() -> None:
    images = {container["image"] for _, container in containers()}
    for image in images:
        assert re.fullmatch(r"[a-z]+:[0-9]+\.[0-9]+[0-9a-z.-]*", image), image
    assert f"prunus:{configs.__version__}" in images
    assert RAY["spec"]["rayVersion"] == pin("ray")


def test_the_image_installs_the_pinned_torch_and_python() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"torch==([0-9.]+)", text) == [pin("torch")]
    assert re.search(r"^FROM python:3\.11-slim", text, re.MULTILINE)
    assert re.search(r"^USER 1000$", text, re.MULTILINE)
    for package in ("configs", "jobs", "cluster", "service"):
        assert f"COPY {package} " in text
    assert re.search(r"^COPY .*requirements\.lock", text, re.MULTILINE)
    assert text.count("-c /src/requirements.lock") == text.count("pip install") - 1, "torch is exact by itself"


def test_ray_up_installs_this_version() -> None:
    assert any(f'"prunus[train]=={configs.__version__}"' in command for command in RAY_UP["setup_commands"])


# Safety and resources


def test_no_secret_stands_in_the_files() -> None:
    assert of_kind("Secret") == []
    for _, container in containers():
        for entry in container.get("env", []):
            if re.search(r"PASSWORD|TOKEN$|SECRET|KEY$", entry["name"]):
                assert "secretKeyRef" in entry["valueFrom"], entry
    assert not re.search(r"://[^@/\s]+:[^@/\s]+@", TEXT)


def test_the_readme_makes_every_secret_with_every_key() -> None:
    readme = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    made: dict[str, set[str]] = {}
    for line in re.findall(r"create secret generic .*", readme):
        made[line.split()[3]] = set(re.findall(r"--from-literal=([a-z_-]+)=", line))
    used: dict[str, set[str]] = {RAY["spec"]["authOptions"]["secretName"]: {"auth_token"}}
    for pod in pods().values():
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"]["items"]}
                used.setdefault(volume["secret"]["secretName"], set()).update(keys)
    for _, container in containers():
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                ref = entry["valueFrom"]["secretKeyRef"]
                used.setdefault(ref["name"], set()).add(ref["key"])
    assert made == used


def test_nothing_runs_as_root_or_may_become_it() -> None:
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
    for _, container in containers():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}[unit]


def test_requests_do_not_exceed_limits() -> None:
    for name, container in containers():
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests) == set(limits), name
        assert all(quantity(requests[key]) <= quantity(limits[key]) for key in requests), name


def test_everything_but_ray_has_probes_and_one_scheduler_runs() -> None:
    for name, container in containers():
        if not name.startswith("ray-"):
            assert "readinessProbe" in container and "livenessProbe" in container
    server = named("Deployment", "prunus-server")["spec"]
    assert (server["replicas"], server["strategy"]["type"]) == (1, "Recreate")


def test_the_servers_probes_ask_routes_that_answer_without_a_token() -> None:
    server = named("Deployment", "prunus-server")["spec"]["template"]["spec"]["containers"][0]
    paths = {kind: server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    assert set(paths.values()) <= _OPEN_PATHS


def test_the_worker_groups_are_fixed_for_only_live_nodes_count() -> None:
    assert RAY["spec"]["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in RAY["spec"]
    for group in RAY["spec"]["workerGroupSpecs"]:
        assert 1 <= group["replicas"] == group["minReplicas"] == group["maxReplicas"], group["groupName"]


def test_the_readme_promises_no_retry_while_there_is_none() -> None:
    assert set(RETRY_BUDGETS.values()) == {0}, "say in cluster/deploy/README.md what is started again"
    assert "Nothing is started again by itself" in (DEPLOY / "README.md").read_text()
