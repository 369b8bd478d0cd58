"""The capabilities that the service has on this node: those of the shipped unit, or of the installed one."""

import subprocess

from kickwatch.node.privileges import SERVICE, LinuxCapability, effective
from kickwatch.node.roots import HOST, HostRoots

UNIT = "kickwatch.service"
_SHOW = ("systemctl", "show", "--property=LoadState,CapabilityBoundingSet", UNIT)
_ANSWERS_WITHIN_S = 2.0
# Attaching and reading the probes takes no others.
_FOR_PROBES = frozenset(
    {LinuxCapability.BPF, LinuxCapability.PERFMON, LinuxCapability.SYS_ADMIN, LinuxCapability.SYSLOG}
)


def service_capabilities(host: HostRoots = HOST) -> frozenset[LinuxCapability] | None:
    """What systemd leaves the service, drop-ins included; of a unit that is not installed, the shipped set. Blocks.

    None where no systemd runs: there is no such service. Under another supervisor kickwatch has what that leaves it.
    """
    if not (host.run / "systemd/system").is_dir():  # sd_booted(3)
        return None
    try:
        shown = subprocess.run(_SHOW, capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return SERVICE
    return bounding_set(shown)


def bounding_set(shown: str) -> frozenset[LinuxCapability]:
    """The capabilities in an answer of `systemctl show`."""
    answers = dict(line.partition("=")[::2] for line in shown.splitlines())
    if answers.get("LoadState") != "loaded":
        return SERVICE
    names = set(answers.get("CapabilityBoundingSet", "").upper().split())
    return frozenset(one for one in LinuxCapability if f"CAP_{one.name}" in names)


def has_more_for_probes(service: frozenset[LinuxCapability]) -> bool:
    """True if this thread has a capability that probes may need and `service` lacks."""
    mine = effective()
    return any(mine & 1 << one for one in _FOR_PROBES - service)
