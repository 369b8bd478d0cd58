"""The capabilities and groups that the service has on this node: of the installed unit, or else of the shipped one."""

import grp
import subprocess
from contextlib import suppress

from kickwatch.node.privileges import SERVICE, LinuxCapability, effective
from kickwatch.node.roots import HOST, HostRoots

UNIT = "kickwatch.service"
_SHOW = ("systemctl", "show", "--property=LoadState,CapabilityBoundingSet,SupplementaryGroups", UNIT)
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
    return bounding_set(_shown())


def bounding_set(shown: str) -> frozenset[LinuxCapability]:
    """The capabilities in an answer of `systemctl show`."""
    answers = _answers(shown)
    if answers.get("LoadState") != "loaded":
        return SERVICE
    names = set(answers.get("CapabilityBoundingSet", "").upper().split())
    return frozenset(one for one in LinuxCapability if f"CAP_{one.name}" in names)


def service_groups() -> frozenset[int]:
    """The groups of the service: root's, and those that a drop-in adds. Blocks."""
    return frozenset({0}) | supplementary_groups(_shown())


def supplementary_groups(shown: str) -> frozenset[int]:
    """The groups in an answer of `systemctl show`, by number."""
    words = _answers(shown).get("SupplementaryGroups", "").split()
    return frozenset(found for word in words if (found := _group(word)) is not None)


def _group(word: str) -> int | None:
    with suppress(KeyError):
        return int(word) if word.isdecimal() else grp.getgrnam(word).gr_gid
    return None


def _shown() -> str:
    """What systemd says about the unit; empty without an answer."""
    try:
        return subprocess.run(_SHOW, capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _answers(shown: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def has_more_for_probes(service: frozenset[LinuxCapability]) -> bool:
    """True if this thread has a capability that probes may need and `service` lacks."""
    mine = effective()
    return any(mine & 1 << one for one in _FOR_PROBES - service)
