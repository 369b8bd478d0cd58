"""Whether the service would drive the engine that `doctor` chose: root has more capabilities and sees all processes."""

from kickwatch.configuration.types import Config, EngineKind
from kickwatch.node.causes import LossCause, hidden_processes
from kickwatch.node.privileges import LinuxCapability
from kickwatch.node.proc_mount import read_proc_mount
from kickwatch.node.roots import HOST
from kickwatch.node.service_unit import UNIT, service_capabilities, service_groups
from kickwatch.workload.cri_support import CONFIGURE_REMEDY
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import kind_of, requested_kind
from kickwatch.workload.oci_support import DROP_IN_REMEDY, MissingPrivilege, missing_privilege


def missing_to_service(config: Config, chosen: EngineInfo) -> MissingPrivilege | None:
    """What the service lacks to drive the engine that this process chose. Blocks.

    None if it lacks nothing, or where no service can be.
    """
    capabilities = service_capabilities()
    if capabilities is None:
        return None
    kind, auto = kind_of(chosen.name), requested_kind(config.engine) is EngineKind.AUTO
    if kind is EngineKind.OCI:
        return _to_make_containers(capabilities, chosen, "start Docker; or " if auto else "")
    if kind is EngineKind.CRI and auto:
        return _to_see_a_kubelet(capabilities, chosen)
    if chosen.rootless:
        return _to_see_containers(capabilities, chosen)
    return None


def _to_make_containers(
    capabilities: frozenset[LinuxCapability], chosen: EngineInfo, or_else: str
) -> MissingPrivilege | None:
    missing = missing_privilege(sum(1 << one for one in capabilities))
    if missing is None:
        return None
    return MissingPrivilege(f"{UNIT} cannot drive {chosen}: {missing.what}", f"{or_else}{DROP_IN_REMEDY}")


def _to_see_a_kubelet(capabilities: frozenset[LinuxCapability], chosen: EngineInfo) -> MissingPrivilege | None:
    """`auto` takes no CRI beside a kubelet, or where one may be hidden."""
    cause = _hidden_from_service(capabilities)
    if cause is None:
        return None
    what = f"{UNIT} does not choose {chosen}, since it cannot tell whether a kubelet runs: {cause.what}"
    return MissingPrivilege(what, f"{cause.remedy}; {CONFIGURE_REMEDY}")


def _to_see_containers(capabilities: frozenset[LinuxCapability], chosen: EngineInfo) -> MissingPrivilege | None:
    """The barrier of a rootless engine's container is invisible where hidepid hides other users' processes."""
    cause = _hidden_from_service(capabilities)
    if cause is None:
        return None
    return MissingPrivilege(f"{UNIT} cannot see the containers of rootless {chosen}: {cause.what}", cause.remedy)


def _hidden_from_service(capabilities: frozenset[LinuxCapability]) -> LossCause | None:
    """Why the service does not see other users' processes; None if it does."""
    mount = read_proc_mount(HOST.proc)
    if LinuxCapability.SYS_PTRACE in capabilities or not mount.hides_from(service_groups()):
        return None
    return hidden_processes(mount)
