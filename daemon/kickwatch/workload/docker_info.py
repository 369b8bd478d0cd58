"""How an engine with Docker's API describes itself: API versions, engine, runtime; and why no engine answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors

import docker
from kickwatch.configuration.docker_socket import docker_host
from kickwatch.errors import EngineAbsentError, EngineError
from kickwatch.workload.docker_calls import OLDEST_API_VERSION, root_cause
from kickwatch.workload.engine import EngineInfo, runtime_absent

_PODMAN = "Podman Engine"
_SHIM = "io.containerd."
_ROOTLESS = "name=rootless"  # Podman says so too. Not name=userns: there root owns the containers' user namespace


@dataclass(frozen=True)
class EngineVersions:
    """The answer to `GET /version`: the engine's API versions, the one to use, and its components with their versions.

    `common_api` is None if kickwatch supports none of the engine's API versions.
    """

    oldest_api: str
    newest_api: str
    common_api: str | None
    components: Mapping[str, str]


def read_versions(api: docker.APIClient) -> EngineVersions:
    """Ask without an API version in the path, which every engine answers."""
    answer = api.version(api_version=False)
    newest = str(answer["ApiVersion"])
    oldest = str(answer.get("MinAPIVersion", newest))
    components = {str(part["Name"]): str(part.get("Version", "")) for part in answer.get("Components") or []}
    return EngineVersions(oldest, newest, common_api_version(oldest, newest), components)


def read_info(api: docker.APIClient, components: Mapping[str, str], wanted: str = "") -> EngineInfo:
    """Name, version, runtime and cgroup driver of the engine.

    `wanted`: the runtime to use; empty for the engine's default. Raises EngineAbsentError if the engine has none of
    that name.
    """
    answer = api.info()
    podman = _PODMAN in components
    runtimes = () if podman else tuple(sorted(map(str, answer.get("Runtimes") or {})))
    info = EngineInfo(
        name="podman" if podman else "docker",
        version=str(answer.get("ServerVersion") or "unknown"),
        runtime=_podman_runtime(components) if podman else _docker_runtime(answer, wanted),
        runtimes=runtimes,
        cgroup_driver=str(answer.get("CgroupDriver", "cgroupfs")),
        root=str(answer.get("DockerRootDir", "/var/lib/docker")),
        rootless=_ROOTLESS in (answer.get("SecurityOptions") or ()),
    )
    if wanted and podman:
        raise EngineAbsentError(
            f"{info} chooses its runtime itself (engine.runtime={wanted})", "see containers.conf(5)"
        )
    # Since 23 Docker takes the name of any containerd shim that is installed, and lists none of them.
    if wanted and wanted not in {*runtimes, answer.get("DefaultRuntime")} and not wanted.startswith(_SHIM):
        raise runtime_absent(str(info), wanted, runtimes)
    return info


def _docker_runtime(answer: Mapping[str, Any], wanted: str) -> str:
    """`runc 1.1.5`. Docker tells the version of its default runtime alone; another one has a name only."""
    default = answer.get("DefaultRuntime") or "unknown"
    if wanted not in {"", default}:
        return wanted
    return f"{default} {(answer.get('RuncCommit') or {}).get('ID') or 'unknown'}"


def _podman_runtime(components: Mapping[str, str]) -> str:
    """`crun 1.8.1` from the component `OCI Runtime (crun)`, whose version is the whole output of `crun --version`."""
    version = next((version for name, version in components.items() if name.startswith("OCI Runtime")), "")
    return " ".join(word for word in version.partition("\n")[0].split() if word != "version") or "unknown"


def common_api_version(oldest: str, newest: str) -> str | None:
    """The oldest API version that both kickwatch and an engine of `oldest` to `newest` support; None if there is none.

    Engines drop old versions: 28 and earlier accept 1.24, 29 requires 1.44.
    """
    low, high = _numbers(oldest), _numbers(newest)
    common = max(_numbers(OLDEST_API_VERSION), low)
    return ".".join(map(str, common)) if common <= high else None


def require_common_api(versions: EngineVersions, socket: str) -> str:
    """The API version to use. Raises EngineError if kickwatch supports none of the engine's."""
    if versions.common_api is None:
        supported = f"{versions.oldest_api} to {versions.newest_api}"
        what = f"the engine at {socket} supports API {supported}, kickwatch {OLDEST_API_VERSION} or later"
        raise EngineError(what, "update it to Docker Engine 20.10 or later")
    return versions.common_api


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def absent(error: EngineError, socket: str) -> EngineAbsentError:
    """The error for an engine that could not be asked for its description."""
    cause = root_cause(error.__cause__ or error)
    if isinstance(error.__cause__, docker.errors.APIError):
        return EngineAbsentError(f"the engine at {socket} answers with an error", cause)
    if "ermission denied" in cause:
        return EngineAbsentError(f"no permission for the engine's socket {socket}", "run as root")
    remedy = "start it (`systemctl start docker`), or set engine.socket"
    if docker_host(os.environ).socket == socket:
        what = f"no container engine answers at {socket}, which DOCKER_HOST names ({cause})"
        return EngineAbsentError(what, "unset DOCKER_HOST, start the engine, or set engine.socket")
    return EngineAbsentError(f"no container engine answers at {socket} ({cause})", remedy)
