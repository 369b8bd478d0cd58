"""Whether this node has a CRI that kickwatch can use, without loading gRPC: sockets, a kubelet, what is configured."""

import stat
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from kickwatch.configuration.types import Config, EngineConfig, Network
from kickwatch.node.causes import hidden_processes
from kickwatch.node.privileges import may_trace
from kickwatch.node.proc_mount import hidden, read_proc_mount
from kickwatch.node.roots import HOST

# k3s and MicroK8s carry the kubelet in their own process.
_KUBELETS = {"kubelet", "k3s", "k3s-server", "k3s-agent", "kubelite"}
CONFIGURE_REMEDY = "without a kubelet: engine.kind=cri"
INSTALL_REMEDY = "pip install 'kickwatch[cri]'"


class Kubelet(StrEnum):
    """Whether a kubelet is on this node. It ends each pod of the CRI that it did not start, within seconds.

    See HandlePodCleanups in Kubernetes' pkg/kubelet/kubelet_pods.go; labels do not matter to it. `hidden`: proc may not
    show it.
    """

    RUNS = "runs"
    ABSENT = "absent"
    HIDDEN = "hidden"


_seen: dict[Path, Kubelet] = {}  # by where proc is mounted


def usual_sockets(run: Path = HOST.run) -> tuple[Path, ...]:
    """Where containerd, CRI-O and k3s listen."""
    return run / "containerd/containerd.sock", run / "crio/crio.sock", run / "k3s/containerd/containerd.sock"


def cri_sockets(engine: EngineConfig) -> list[str]:
    """The configured socket if it is not Docker's default, else the usual ones that exist; the first if none does."""
    if engine.socket != EngineConfig().socket:
        return [engine.socket]
    usual = usual_sockets()
    return [str(path) for path in usual if _is_socket(path)] or [str(usual[0])]


def has_grpc() -> bool:
    """Whether the extra `cri` is installed."""
    return find_spec("grpclib") is not None and find_spec("google.protobuf") is not None


def find_kubelet(proc: Path = HOST.proc) -> Kubelet:
    """Look for a kubelet. What was seen before holds where this process no longer sees all others.

    The daemon looks before it gives up the capabilities with which it sees them in a proc with hidepid.
    """
    found = Kubelet.RUNS if _runs(proc) else Kubelet.ABSENT
    if found is Kubelet.ABSENT and not _sees_all(proc):
        return _seen.get(proc, Kubelet.HIDDEN)
    _seen[proc] = found
    return found


def why_hidden(proc: Path = HOST.proc) -> str:
    """Why it is not known whether there is a kubelet, and what to do about it."""
    cause = hidden_processes(read_proc_mount(proc))
    return f"{cause.what}; {cause.remedy}; {CONFIGURE_REMEDY}"


def _sees_all(proc: Path) -> bool:
    """True if proc shows every process, or this one may see what it hides: by its capability, or as a group's member.

    Who sees the first process sees a kubelet, too: both are root's, with all capabilities.
    """
    return may_trace() or not hidden(proc, 1, read_proc_mount(proc))


def _runs(proc: Path) -> bool:
    for comm in proc.glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8", errors="replace").strip() in _KUBELETS:
                return True
        except OSError:
            continue
    return False


def unsupported_by_cri(config: Config) -> str:
    """The configured key that needs another engine, and why; empty if there is none."""
    workload = config.workload
    if workload.network is Network.BRIDGE:
        return "workload.network=bridge is Docker's; a CRI has host and cni"
    if workload.network is Network.NONE and workload.image:
        return f"a CRI makes no pod without a network, and workload.image={workload.image} is not kickwatch's own"
    return ""


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
