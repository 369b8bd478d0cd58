"""How a CRI describes itself: runtime, cgroup driver, the image of its pods; and why none answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import msgspec
from grpclib.const import Status

from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls
from kickwatch.workload.engine import EngineInfo, runtime_absent

RUNTIME = "/runtime.v1.RuntimeService/"
_REMEDY = "start it (`systemctl start containerd`), or set engine.socket"


@dataclass(frozen=True)
class CriDescription:
    """A CRI's own words. `pod_image`: of the pause container, empty if unknown. `networks`: CNI is configured."""

    info: EngineInfo
    pod_image: str
    networks: bool
    no_networks: str


async def describe(calls: CriCalls, wanted: str = "") -> CriDescription:
    """Ask a CRI for its description. `wanted`: the runtime handler to use; empty for the default one.

    Raises EngineAbsentError if none answers, it is not ready, or it has no such handler.
    """
    try:
        what = "ask the engine for its version"
        version = await calls.call(what, f"{RUNTIME}Version", cri.VersionRequest(), cri.VersionResponse)
        request = cri.StatusRequest(verbose=True)
        status = await calls.call("ask the engine", f"{RUNTIME}Status", request, cri.StatusResponse)
        driver = await _cgroup_driver(calls)
    except EngineError as error:
        raise _absent(error, calls.socket) from error
    conditions = {condition.type: condition for condition in status.status.conditions}
    runtime, network = conditions.get("RuntimeReady"), conditions.get("NetworkReady")
    if runtime is not None and not runtime.status:
        what = f"{version.runtime_name} at {calls.socket} is not ready ({runtime.reason} {runtime.message})"
        raise EngineAbsentError(what, "journalctl -u containerd")
    config = _config(status.info)
    name, of_handler, systemd = _runtime(config, wanted)
    handlers = _handlers(config, status)
    info = EngineInfo(
        name=version.runtime_name or "cri",
        version=version.runtime_version or "unknown",
        runtime=name,
        runtimes=handlers,
        cgroup_driver=of_handler or driver or ("systemd" if systemd else "cgroupfs"),
        root=str(config.get("containerdRootDir") or "unknown"),
        endpoint=calls.socket,
    )
    if wanted and handlers and wanted not in handlers:
        raise runtime_absent(str(info), wanted, handlers)
    ready = network is not None and network.status
    return CriDescription(info, _pod_image(config), ready, network.message if network is not None else "")


async def _cgroup_driver(calls: CriCalls) -> str:
    """`systemd` or `cgroupfs`; empty where the CRI is older than that question (containerd before 2.0)."""
    try:
        request, path = cri.RuntimeConfigRequest(), f"{RUNTIME}RuntimeConfig"
        answer = await calls.call("ask for the cgroup driver", path, request, cri.RuntimeConfigResponse)
    except CallRefusedError:
        return ""
    if not answer.HasField("linux"):  # the field's default would be systemd
        return ""
    return "systemd" if answer.linux.cgroup_driver == cri.SYSTEMD else "cgroupfs"


def _config(info: Mapping[str, str]) -> dict[str, Any]:
    """containerd's CRI configuration, which it shows as JSON; other engines show none."""
    try:
        config = msgspec.json.decode(info.get("config", "{}"))
    except msgspec.DecodeError:
        return {}
    return config if isinstance(config, dict) else {}


def _handlers(config: Mapping[str, Any], status: cri.StatusResponse) -> tuple[str, ...]:
    """The runtime handlers by name: as containerd's configuration has them, or as a CRI lists them since 1.30."""
    configured = (config.get("containerd") or {}).get("runtimes") or {}
    return tuple(sorted({*configured, *(handler.name for handler in status.runtime_handlers)} - {""}))


def _runtime(config: Mapping[str, Any], wanted: str) -> tuple[str, str, bool]:
    """(`runc io.containerd.runc.v2`, the cgroup driver of the handler `wanted`, whether systemd's is configured).

    The driver is empty if that handler says nothing. A CRI that is asked for its driver gives that of the default
    handler. No CRI tells the runtime's version.
    """
    containerd = config.get("containerd") or {}
    name = wanted or str(containerd.get("defaultRuntimeName") or "")
    runtime = (containerd.get("runtimes") or {}).get(name) or {}
    options = runtime.get("options") or {}
    program = PurePath(str(options.get("BinaryName") or name or "default")).name
    kind = str(runtime.get("runtimeType") or "runtime")
    own = options.get("SystemdCgroup") if wanted else None
    of_handler = "" if own is None else "systemd" if own else "cgroupfs"
    return f"{program} {kind}", of_handler, bool(options.get("SystemdCgroup") or config.get("systemdCgroup"))


def _pod_image(config: Mapping[str, Any]) -> str:
    pinned = config.get("pinnedImages") or config.get("pinned_images") or {}
    return str(config.get("sandboxImage") or pinned.get("sandbox") or "")


def _absent(error: EngineError, socket: str) -> EngineAbsentError:
    if isinstance(error, CallRefusedError):
        if error.status is Status.UNIMPLEMENTED:
            what = f"what answers at {socket} serves no CRI (runtime.v1)"
            return EngineAbsentError(what, "take `cri` out of disabled_plugins in /etc/containerd/config.toml")
        return EngineAbsentError(f"the CRI at {socket} answers with an error", error.remedy)
    cause = error.__cause__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else error.what.partition(": ")[2]
    if isinstance(cause, PermissionError):
        return EngineAbsentError(f"no permission for the engine's socket {socket}", "run as root")
    if not isinstance(error, EngineAnswerLostError):
        return EngineAbsentError(error.what, error.remedy)
    return EngineAbsentError(f"no CRI answers at {socket} ({reason})", _REMEDY)
