"""What kickwatch asks a CRI for: a pod with one container, confined as the kubelet confines an ordinary one.

Its name, namespace and labels are none of the kubelet's (`io.kubernetes.*`), so that who reads those counts no pod.
"""

from kickwatch.configuration.types import Network
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload.engine import ContainerSpec

NAMESPACE = "kickwatch"
# What Docker and the kubelet mask: files of proc and sys that show or change the node.
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi",
    "/proc/sched_debug", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def pod(spec: ContainerSpec) -> cri.PodSandboxConfig:
    """The pod of a container. Names are unique on the node, so a pod whose answer was lost cannot be made twice."""
    security = cri.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(spec.network), readonly_rootfs=True, seccomp=_default_seccomp()
    )
    network = Network(spec.network)
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=spec.name, uid=spec.name, namespace=NAMESPACE),
        hostname=spec.name if network is Network.CNI else "",
        labels=spec.labels(),
        linux=cri.LinuxPodSandboxConfig(cgroup_parent=spec.cgroup_parent, security_context=security),
    )


def container(spec: ContainerSpec, *, own_program: bool, unified: bool) -> cri.ContainerConfig:
    """The container in that pod. Our own program gets no capability, a user's the engine's default.

    `unified`: the node has cgroup v2 alone. A CRI has no other way to limit the number of processes.
    """
    security = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(drop_capabilities=["ALL"] if own_program else []),
        namespace_options=_namespaces(spec.network),
        no_new_privs=own_program,
        masked_paths=_MASKED,
        readonly_paths=_READ_ONLY,
        seccomp=_default_seccomp(),
    )
    limits = {"pids.max": str(spec.pids_limit)} if unified and spec.pids_limit else {}
    resources = cri.LinuxContainerResources(unified=limits)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=spec.name),
        image=cri.ImageSpec(image=spec.image),
        args=spec.command,  # the image's entrypoint stays
        labels=spec.labels(),
        linux=cri.LinuxContainerConfig(resources=resources, security_context=security),
    )


def unsupported_network(network: str, *, own_image: bool) -> str:
    """Why a CRI makes no pod with this network; empty if it does."""
    if network == Network.BRIDGE:
        return "workload.network=bridge is Docker's: a CRI has host and cni"
    if network == Network.NONE and not own_image:
        return "a CRI makes no pod without a network, and workload.image is not kickwatch's: set workload.network"
    return ""


def _namespaces(network: str) -> cri.NamespaceOption:
    """Only CNI's plugins make a network namespace. For `none` it is the node's, which our program does not use."""
    mode = cri.POD if network == Network.CNI else cri.NODE
    return cri.NamespaceOption(network=mode, pid=cri.CONTAINER, ipc=cri.POD)


def _default_seccomp() -> cri.SecurityProfile:
    """Without a profile a CRI sets no filter."""
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
