"""Starts the container of a pod template with Docker, as a kubelet and a container runtime would start it.

`docker_options` translates the manifest and refuses what it does not know, so a line that is added there is not left
out here. Docker 20.10 is older than CAP_BPF; `write_runtime` makes a runtime that adds what newer engines add.
"""

import json
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# No part of how the container runs, or of the scheduler's and the kubelet's own work.
_NOT_TRANSLATED = {
    "pod": {
        "affinity", "automountServiceAccountToken", "containers", "enableServiceLinks", "priorityClassName",
        "serviceAccountName", "terminationGracePeriodSeconds", "volumes",
    },
    "container": {"image", "imagePullPolicy", "livenessProbe", "name", "ports", "readinessProbe", "startupProbe"},
}  # fmt: skip
# What runtimes cover, beside what Docker 20.10 covers. Kubernetes sends this list, and engines have it since 2025.
COVERED_BY_NEWER_ENGINES = ("/proc/interrupts",)
# The system calls that a default profile allows with a capability: since Docker 23 and containerd 1.7.
_CALLS = {"BPF": "bpf", "PERFMON": "perf_event_open"}
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_RUNTIME = """#!{python} -I
# Stands for an engine that knows these capabilities: it adds them where Docker has left them out, and runs runc.
import json, os, sys
if "create" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    capabilities = config["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        capabilities[kind] = sorted({{*(capabilities.get(kind) or ()), *{capabilities!r}}})
    config["linux"]["maskedPaths"] += {covered!r}
    config["linux"]["seccomp"]["syscalls"].append({{"names": {calls!r}, "action": "SCMP_ACT_ALLOW"}})
    with open(path, "w") as file:
        json.dump(config, file)
os.execv({runc!r}, ["runc", *sys.argv[1:]])
"""


class UntranslatedError(Exception):
    """The manifest has something that this module does not know."""


@dataclass(frozen=True)
class Pod:
    """The pod template of a DaemonSet with one container. `places`: other paths for some of the node's."""

    spec: Mapping[str, Any]
    files: Mapping[str, str]  # of its ConfigMap
    scratch: Path
    places: Mapping[str, Path]

    @property
    def container(self) -> Mapping[str, Any]:
        """Its only container."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Those that are added; all others are dropped."""
        given = self.container["securityContext"]["capabilities"]
        if given["drop"] != ["ALL"]:
            raise UntranslatedError(f"capabilities.drop: {given['drop']}")
        return tuple(given["add"])

    def without_mount(self, path: str) -> "Pod":
        """The same pod without the mount at `path`."""
        left = [mount for mount in self.container["volumeMounts"] if mount["mountPath"] != path]
        return replace(self, spec={**self.spec, "containers": [{**self.container, "volumeMounts": left}]})

    def known_to(self, docker: frozenset[str]) -> tuple[str, ...]:
        """Capabilities that Docker may be asked for; the runtime adds the others."""
        return tuple(name for name in self.capabilities if name in docker)


def docker_options(pod: Pod, capabilities: tuple[str, ...]) -> list[str]:
    """Options and arguments of `docker run`, from the manifest. `capabilities`: of these, those that Docker knows."""
    return [*_of_pod(pod.spec), *_of_container(pod, capabilities), pod.container["image"], *pod.container["args"]]


def _of_pod(spec: Mapping[str, Any]) -> Iterator[str]:
    for key, value in spec.items():
        match key, value:
            case "securityContext", {"seccompProfile": {"type": "RuntimeDefault"}} if len(value) == 1:
                pass  # Docker's default
            case "hostPID", bool():
                yield from ("--pid", "host") if value else ()
            case _ if key not in _NOT_TRANSLATED["pod"]:
                raise UntranslatedError(f"{key}: {value}")
    yield from ("--network", "none")  # a network namespace of its own


def _of_container(pod: Pod, capabilities: tuple[str, ...]) -> Iterator[str]:
    for key, value in pod.container.items():
        match key:
            case "args":
                pass  # after the image
            case "env":
                yield from (word for each in value for word in ("--env", _variable(each)))
            case "resources":
                yield from _limits(value["limits"])
            case "securityContext":
                yield from _security(value, capabilities)
            case "volumeMounts":
                volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
                yield from (word for mount in value for word in _mount(pod, mount, volumes[mount["name"]]))
            case _ if key not in _NOT_TRANSLATED["container"]:
                raise UntranslatedError(f"{key}: {value}")


def _variable(given: Mapping[str, str]) -> str:
    if set(given) != {"name", "value"}:
        raise UntranslatedError(f"env: {given}")
    return f"{given['name']}={given['value']}"


def _limits(limits: Mapping[str, str]) -> Iterator[str]:
    for key, value in limits.items():
        match key:
            case "cpu":
                yield from ("--cpus", value)
            case "memory":
                yield from ("--memory", str(_bytes(value)), "--memory-swap", str(_bytes(value)))
            case "ephemeral-storage":
                pass  # the kubelet's; with a read-only root only its own log counts
            case _:
                raise UntranslatedError(f"limits: {key}")


def _security(context: Mapping[str, Any], capabilities: tuple[str, ...]) -> Iterator[str]:
    yield from ("--user", f"{context['runAsUser']}:{context['runAsGroup']}")
    for key, value in context.items():
        match key, value:
            case (("runAsUser" | "runAsGroup"), _):
                pass
            case "privileged", False:
                pass
            case "allowPrivilegeEscalation", False:
                yield from ("--security-opt", "no-new-privileges")
            case "readOnlyRootFilesystem", True:
                yield "--read-only"
            case "capabilities", _:
                yield from ("--cap-drop", "ALL", *(word for name in capabilities for word in ("--cap-add", name)))
            case _:
                raise UntranslatedError(f"securityContext: {key}: {value}")


def _mount(pod: Pod, mount: Mapping[str, Any], volume: Mapping[str, Any]) -> Iterator[str]:
    if unknown := set(mount) - {"name", "mountPath", "readOnly"}:
        raise UntranslatedError(f"volumeMounts: {unknown}")
    target, read_only = mount["mountPath"], ",readonly" if mount.get("readOnly") else ""
    match volume:
        case {"hostPath": {"path": path, "type": kind}}:
            source = pod.places.get(path, Path(path))
            _prepare(source, kind)
            yield from ("--mount", f"type=bind,source={source},target={target}{read_only}")
        case {"emptyDir": {"medium": "Memory", "sizeLimit": size}}:
            yield from ("--tmpfs", f"{target}:exec,size={_bytes(size)}")
        case {"configMap": {"name": _}}:
            source = pod.scratch / "config"
            source.mkdir(exist_ok=True)
            for name, text in pod.files.items():
                (source / name).write_text(text)
            yield from ("--mount", f"type=bind,source={source},target={target},readonly")
        case _:
            raise UntranslatedError(f"volumes: {volume}")


def _prepare(path: Path, kind: str) -> None:
    """As the kubelet checks and makes it."""
    match kind:
        case "DirectoryOrCreate":
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        case "FileOrCreate":
            path.touch(mode=0o644)
        case "Directory":
            if not path.is_dir():
                raise UntranslatedError(f"{path} is not a directory: the pod would not start")
        case _:
            raise UntranslatedError(f"hostPath: {kind}")


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def write_runtime(path: Path, capabilities: tuple[str, ...]) -> None:
    """A runtime for `dockerd --add-runtime`."""
    text = _RUNTIME.format(
        python=sys.executable,
        runc=shutil.which("runc"),
        capabilities=[f"CAP_{name}" for name in capabilities],
        covered=list(COVERED_BY_NEWER_ENGINES),
        calls=[_CALLS[name] for name in capabilities if name in _CALLS],
    )
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def probe(pod: Pod, name: str) -> tuple[str, int]:
    """Path and port of an HTTP probe."""
    get = pod.container[name]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
    return get["path"], ports[get["port"]]


def parsed(text: str) -> dict[str, Any]:
    """A JSON object."""
    found: dict[str, Any] = json.loads(text)
    return found
