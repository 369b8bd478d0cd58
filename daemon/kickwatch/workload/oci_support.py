"""What driving a runtime needs, and whether this node and this process have it: the program, seccomp, capabilities."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from kickwatch.errors import EngineAbsentError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.delegation import own_base
from kickwatch.node.privileges import FOR_CONTAINERS, LinuxCapability, held
from kickwatch.workload.names import CGROUP_NAME

RUNTIME_NAMES = ("runc", "crun")
DROP_IN_REMEDY = "for the service install the drop-in oci.conf (systemd.md) and restart it"
INSTALL_REMEDY = "install runc or crun (`apt-get install runc`), or name one with engine.runtime"
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # runc is often there, and a user's PATH lacks them


class MissingPrivilege(NamedTuple):
    """A privilege that a process lacks, in a sentence, and the remedy."""

    what: str
    remedy: str


def find_runtime(configured: str = "") -> Path | None:
    """The runtime to drive: `configured` (a name or an absolute path), else runc, else crun; None if there is none."""
    for name in (configured,) if configured else RUNTIME_NAMES:
        if found := shutil.which(name, path=search_path()):
            return Path(found)
    return None


def require_runtime(configured: str, proc: Path) -> Path:
    """The runtime to drive. Raises EngineAbsentError if there is none or this process may not drive it."""
    program = find_runtime(configured)
    if program is None:
        raise EngineAbsentError(f"no {configured or ' or '.join(RUNTIME_NAMES)} on PATH", INSTALL_REMEDY)
    if missing := missing_privilege(held(proc)):
        raise EngineAbsentError(missing.what, missing.remedy)
    return program


def search_path() -> str:
    """PATH, extended by the directories of system programs. A runtime gets no other variable of our environment.

    With NOTIFY_SOCKET a runtime would wait until the container reports to systemd that it is ready, and with LISTEN_FDS
    it would pass descriptors on.
    """
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))


def parse_version(output: str, program: str) -> tuple[str, str]:
    """`runc version 1.1.5+ds1` is (runc, 1.1.5+ds1); a wrapper without output is named after its file."""
    words = output.partition("\n")[0].split()
    if len(words) >= 3 and words[1] == "version":
        return words[0], words[2]
    return program, "unknown"


def has_seccomp(version_output: str, proc: Path) -> bool:
    """Whether both kernel and runtime support it: runc prints its libseccomp version, crun its features."""
    kernel = (proc / "sys/kernel/seccomp").is_dir()  # "seccomp: Sysctl to display available actions", 4.14
    return kernel and ("libseccomp:" in version_output or "+SECCOMP" in version_output)


def missing_privilege(capabilities: int) -> MissingPrivilege | None:
    """What a process with these capabilities, one bit for each, lacks to drive a runtime; None if it lacks nothing.

    CAP_SYS_ADMIN alone, which sys-admin.conf grants, creates no container.
    """
    lacking = [f"CAP_{one.name}" for one in LinuxCapability if one in FOR_CONTAINERS and not capabilities & 1 << one]
    if not lacking:
        return None
    what = f"without {' '.join(lacking)} kickwatch cannot make containers itself"
    by_hand = "by hand run as root, with engine.kind set before the start"
    return MissingPrivilege(what, f"{DROP_IN_REMEDY}; {by_hand}; or set engine.kind=docker")


def cgroup_parent_of(cgroups: Cgroups) -> str:
    """`/kickwatch` in every hierarchy, or below our unit if systemd delegated that part of cgroup v2 to us."""
    base = own_base(cgroups).relative_to(cgroups.memory_root)
    return str(Path("/") / base / CGROUP_NAME)
