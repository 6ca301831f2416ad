"""What deploy/ says is valid, and true of the code: schemas, references, variables, paths, ports, metrics."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from fraud_platform.adapters.image import ENVIRONMENT, PORT, STATE, USER, containerfile
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
PROMETHEUS = DEPLOY / "prometheus"
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSIONS = ("1.31", "1.37")
"""The oldest that has every field, and the newest whose schema is known."""

VERSION = re.compile(r"\$\{FRAUD_PLATFORM_TAG:\?[^}]*\}")
compose_text, given_versions = VERSION.subn("0123abc-456", COMPOSE.read_text(encoding="utf-8"))
compose = yaml.safe_load(compose_text)
kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
manifests = [
    manifest
    for name in kustomization["resources"]
    for manifest in yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))
]
by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
stateful_set = by_name["StatefulSet", "fraud-platform"]
pod = stateful_set["spec"]["template"]
(container,) = pod["spec"]["containers"]
config = by_name["ConfigMap", "fraud-platform"]["data"]
service = compose["services"]["service"]


def names(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def values_of(tree: Any, key: str) -> Iterator[Any]:
    """Every value below a key of that name."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values_of(value, key)


def source(pattern: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(PROJECT_ROOT.glob(pattern)))


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("manifest", manifests, ids=names)
def test_every_manifest_fits_its_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_see_a_misspelt_field() -> None:
    spec = {**pod["spec"], "containers": [{**container, "redinessProbe": {}}]}
    wrong = {**stateful_set, "spec": {**stateful_set["spec"], "template": {**pod, "spec": spec}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="redinessProbe"):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)
    with pytest.raises(ValueError, match="raed_only"):
        PyCompose.from_yaml(compose_text.replace("read_only", "raed_only"))


def test_the_compose_file_fits_its_specification_and_names_what_it_has() -> None:
    assert given_versions == 1, "the image's version is the one thing that its user must give"
    PyCompose.from_yaml(compose_text).validate()


def test_the_kustomization_takes_every_file_and_names_the_image() -> None:
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    assert [image["name"] for image in kustomization["images"]] == [container["image"]]


def test_every_reference_between_manifests_has_its_end() -> None:
    spec = stateful_set["spec"]
    assert ("Service", spec["serviceName"]) in by_name
    assert by_name["Service", spec["serviceName"]]["spec"]["clusterIP"] == "None"
    assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in by_name
    for source_of in container["envFrom"]:
        assert ("ConfigMap", source_of["configMapRef"]["name"]) in by_name
    target = by_name["HorizontalPodAutoscaler", "fraud-platform"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in by_name
    assert target["apiVersion"] == stateful_set["apiVersion"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes | claims


def test_every_selector_of_ours_finds_the_pods() -> None:
    labels = pod["metadata"]["labels"]
    selectors = [
        manifest["spec"][key]
        for manifest in manifests
        for key in ("selector", "podSelector")
        if key in manifest.get("spec", {})
    ]
    selectors += list(values_of(pod["spec"], "labelSelector"))
    assert len(selectors) == 7
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert wanted
        assert wanted.items() <= labels.items()


def test_variables_are_the_code_s() -> None:
    known = set(re.findall(r"\"(FRAUD_PLATFORM_[A-Z_]+)\"", source("fraud_platform/**/*.py")))
    used = {name for name in (*config, *service["environment"]) if name.startswith("FRAUD_PLATFORM_")}
    assert used <= known
    assert set(config) == set(service["environment"])


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_state_and_secrets_are_mounted_where_the_variables_point(where: str) -> None:
    if where == "compose":
        env = service["environment"]
        mounted = {volume.split(":")[1] for volume in service["volumes"]}
        files = {f"/run/secrets/{name}" for name in service["secrets"]}
        assert set(service["secrets"]) == set(compose["secrets"])
    else:
        env = config
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        mounted = set(places.values())
        secret = next(volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "secrets")
        files = {f"{places['secrets']}/{item['path']}" for item in secret["items"]}
    assert env["FRAUD_PLATFORM_STATE"] == STATE
    assert STATE in mounted
    pointed = {value for name, value in env.items() if name.endswith(("_FILE", "_KEYS"))}
    assert pointed == files


def test_user_and_port_are_the_image_s() -> None:
    security = pod["spec"]["securityContext"]
    assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {USER}
    assert service["user"] == f"{USER}:{USER}"
    assert [port["containerPort"] for port in container["ports"]] == [PORT]
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert ENVIRONMENT["BENTOML_PORT"] == pod["metadata"]["annotations"]["prometheus.io/port"] == str(PORT)
    ports = {port["name"] for port in container["ports"]}
    assert set(values_of(manifests, "targetPort")) == ports
    inward = by_name["NetworkPolicy", "fraud-platform"]["spec"]["ingress"]
    assert set(values_of(inward, "port")) == ports
    assert set(values_of(container, "port")) == ports
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert [target for one in values_of(scraped, "targets") for target in one] == [f"service:{PORT}"]


def test_probes_and_metrics_are_paths_that_are_served() -> None:
    served = source("fraud_platform/adapters/http*.py")
    paths = set(values_of(container, "path")) | {pod["metadata"]["annotations"]["prometheus.io/path"]}
    assert paths == {"/readyz", "/livez", "/metrics"}
    for path in paths:
        assert f'"{path}"' in served
    liveness = container["livenessProbe"]["httpGet"]["path"]
    assert liveness == "/livez", "a store that fails is no reason to start again"
    health = service["healthcheck"]["test"]
    written = containerfile("inner", "base", {"version": "1-1", "creation_time": ""})
    assert f'"{health[2]}", "{health[3]}", "{health[4]}"' in written.replace("] CMD", "")


@pytest.mark.parametrize("name", compose["services"])
def test_every_container_of_compose_is_locked_down(name: str) -> None:
    given = compose["services"][name]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert int(given["user"].partition(":")[0]) > 0
    assert {"mem_limit", "pids_limit", "healthcheck", "restart"} <= given.keys()
    for port in given["ports"]:
        assert port.startswith("127.0.0.1:")
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", given["image"]), "an image without a version"


def test_the_pods_are_locked_down() -> None:
    security = {**pod["spec"]["securityContext"], **container["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "memory" in container["resources"]["limits"]


def test_redis_keeps_what_it_was_told() -> None:
    command = compose["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert any(volume.endswith(":/data") for volume in compose["services"]["redis"]["volumes"])


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


def test_alerts_ask_for_metrics_that_the_service_has() -> None:
    exposed = re.findall(r"^# TYPE (\S+)", Metrics().exposition().decode(), re.MULTILINE)
    known = {name + suffix for name in exposed for suffix in ("", "_bucket", "_sum", "_count")}
    used = set(re.findall(r"\bfraud_[a-z_]+", " ".join(rule["expr"] for rule in rules()))) - {
        "fraud_platform"
    }
    assert {"fraud_decisions_total", "fraud_decision_seconds_bucket"} <= used
    assert used <= known


def test_every_alert_is_seen_to_fire() -> None:
    tested = set(
        re.findall(r'alertname="(\w+)"', (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))
    )
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert tested == alerts.keys()
    for alert in alerts.values():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "action"} == alert["annotations"].keys()


@pytest.mark.parametrize(
    "words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_prometheus_reads_its_files_and_its_alerts_pass_their_tests(words: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        reason = "promtool not found: apt-get install prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    done = subprocess.run(
        ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_stay_out_of_the_repository() -> None:
    ignored = (PROJECT_ROOT / ".gitignore").read_text(encoding="utf-8").split()
    files = [Path(secret["file"]) for secret in compose["secrets"].values()]
    assert {str(file.parent) for file in files} == {"secrets"}
    assert "deploy/secrets/" in ignored
