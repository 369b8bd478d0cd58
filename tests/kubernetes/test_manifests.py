"""The manifests as kustomize renders them: valid by Kubernetes' schemas, and no more permissive than they say."""

import itertools
import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
from cloudcoil.models.prometheus_operator import v1 as operator

from kickwatch import __version__
from kickwatch.configuration.loading import load
from manifests import TREE, Manifest, one, overlay, rendered, with_components

ROOT = Path(__file__).parents[2]
OVERLAYS = ("passive", "cri")
# The schemas of the oldest release that is looked at, and of the newest that the package has.
RELEASES = ("1.29", kubernetes_validate.latest_version())
GROUPS = ("kickwatch", "kickwatch-canary")


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each overlay."""
    return overlay(str(request.param))


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_by_the_schemas_of_kubernetes(objects: list[Manifest], release: str) -> None:
    assert len(objects) == 6
    for each in objects:
        kubernetes_validate.validate(each, release, strict=True)


def test_a_misspelt_field_is_found(objects: list[Manifest]) -> None:
    """Otherwise the test above could not fail."""
    daemonset = one(objects, "DaemonSet", "kickwatch")
    wrong = {**daemonset, "spec": {**daemonset["spec"], "updateStrateg": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="updateStrateg"):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_the_default_is_passive() -> None:
    assert rendered(TREE) == overlay("passive")
    (config,) = (each for each in rendered(TREE) if each["kind"] == "ConfigMap")
    assert tomllib.loads(config["data"]["kickwatch.toml"])["workload"] == {"enabled": False}


def test_the_configuration_is_one_that_kickwatch_takes(objects: list[Manifest], tmp_path: Path) -> None:
    (config,) = (each for each in objects if each["kind"] == "ConfigMap")
    path = tmp_path / "kickwatch.toml"
    path.write_text(config["data"]["kickwatch.toml"])
    loaded = load(path)
    assert loaded.warnings == ()
    port = int(loaded.config.metrics.listen.rpartition(":")[2])
    for group in GROUPS:
        (container,) = one(objects, "DaemonSet", group)["spec"]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "metrics", "containerPort": port}]
        assert container["args"][-1] == "/etc/kickwatch/kickwatch.toml"


def test_the_image_is_that_of_this_version(objects: list[Manifest]) -> None:
    for group in GROUPS:
        (container,) = one(objects, "DaemonSet", group)["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"localhost/kickwatch:{__version__}"


def test_each_node_is_in_one_group_and_none_is_a_canary_by_itself(objects: list[Manifest]) -> None:
    found = {}
    for group in GROUPS:
        spec = one(objects, "DaemonSet", group)["spec"]
        affinity = spec["template"]["spec"]["affinity"]["nodeAffinity"]
        (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        operators = {each["key"]: each["operator"] for each in term["matchExpressions"]}
        assert operators["kickwatch/off"] == "DoesNotExist"
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        found[group] = (operators["kickwatch/canary"], spec["selector"]["matchLabels"]["kickwatch/group"])
    assert found == {"kickwatch": ("DoesNotExist", "stable"), "kickwatch-canary": ("Exists", "canary")}


def test_experiments_run_only_on_nodes_that_were_prepared() -> None:
    assert '"kickwatch/experiment", "operator": "Exists"' in str(overlay("cri")).replace("'", '"')
    assert "kickwatch/experiment" not in str(overlay("passive"))


def test_each_capability_and_each_mount_has_a_comment() -> None:
    for name in ("daemonset/daemonset.yaml", "overlays/cri/experiment.yaml"):
        lines = (TREE / name).read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if re.match(r"\s+- \{name: \w+, mountPath", line):
                assert before.lstrip().startswith("#"), line
            if re.match(r"\s+- [A-Z_]+\b", line):
                assert " # " in line, line


def test_what_no_overlay_may_have(objects: list[Manifest]) -> None:
    for group in GROUPS:
        pod = one(objects, "DaemonSet", group)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert not {"hostNetwork", "hostIPC", "initContainers", "tolerations"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False
        more = ["DAC_OVERRIDE"] if objects == overlay("cri") else []
        capabilities = container["securityContext"]["capabilities"]
        assert capabilities == {"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYSLOG", *more]}
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= {"/run/kickwatch", "/run/kickwatch.lock", "/sys/fs/cgroup", "/tmp", "/var/lib/kickwatch"}
    assert ("hostPID" in str(objects)) == ("/sys/fs/cgroup" in str(objects)) == (objects == overlay("cri"))


def test_the_pod_monitor_is_valid_and_selects_the_pods(tmp_path: Path) -> None:
    """The model is generated from the operator's CRD. It ignores unknown fields, so all have to come back."""
    objects = with_components(tmp_path, "passive", "pod-monitor")
    monitor = one(objects, "PodMonitor", "kickwatch")
    model = operator.PodMonitor.model_validate(monitor)
    assert model.model_dump(by_alias=True, exclude_unset=True, mode="json") == monitor
    selected = monitor["spec"]["selector"]["matchLabels"]
    for group in GROUPS:
        template = one(objects, "DaemonSet", group)["spec"]["template"]
        assert selected.items() <= template["metadata"]["labels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_a_component_chooses_nodes_by_kernel_release(tmp_path: Path) -> None:
    for each in with_components(tmp_path, "passive", "kernel"):
        if each["kind"] == "DaemonSet":
            kubernetes_validate.validate(each, RELEASES[-1], strict=True)
            assert "kernel-version.full" in str(each["spec"]["template"]["spec"]["affinity"])
