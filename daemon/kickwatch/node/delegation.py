"""cgroup v2 under systemd: the subtree that is delegated to kickwatch, and the leaf that the daemon moves to.

Only below a unit with `Delegate=yes` may others than systemd create cgroups (its document "Control Group APIs and
Delegation"). A v2 cgroup can enable controllers for its children only while it contains no process, so the daemon first
moves from its own cgroup into a leaf. systemd marks a delegated cgroup with an extended attribute.
"""

import os
from contextlib import suppress
from errno import EROFS
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups, CgroupVersion

LEAF = "daemon"
_MARKS = ("trusted.delegate", "user.delegate")  # since systemd 236 for root, since 251 for all


def delegated(cgroup: Path) -> bool:
    """True if systemd has delegated this cgroup."""
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(cgroup, mark) == b"1":
                return True
    return False


def enter_leaf(cgroups: Cgroups) -> Path | None:
    """Move this process into the leaf below its delegated v2 cgroup; returns the leaf, None if none is delegated.

    Call it before any child is started, since a child starts in its parent's cgroup. Raises CgroupError.
    """
    own = _own(cgroups)
    if own is None:
        return None
    if own.name == LEAF and delegated(own.parent):
        return own
    if not delegated(own):
        return None
    leaf = own / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        if error.errno == EROFS:  # a container's: systemd delegated it to the engine, which shows it read-only
            return None
        what = f"{leaf} cannot be entered ({error.strerror})"
        raise CgroupError(what, "run in the cgroup namespace of the host, with Delegate=yes in the unit") from error
    return leaf


def own_base(cgroups: Cgroups) -> Path:
    """The parent for our own cgroups: the unit's cgroup if the daemon is in its leaf, else the memory root.

    On v1 the memory root as well, but for a process that may not write there: the kernel gives the root of a hierarchy
    the mode 0555, so root needs CAP_DAC_OVERRIDE, which the service does not have. The unit's cgroup is its own.
    """
    own = _own(cgroups)
    if own is not None and own.name == LEAF and delegated(own.parent):
        return own.parent
    if cgroups.version is CgroupVersion.V1 and not writable(cgroups.memory_root):
        with suppress(CgroupError):
            return cgroups.memcg_dir_of("self")
    return cgroups.memory_root


def writable(cgroup: Path) -> bool:
    """Whether this process may make and remove cgroups in it."""
    return os.access(cgroup, os.W_OK, effective_ids=True)


def _own(cgroups: Cgroups) -> Path | None:
    """This process's cgroup on v2. None on v1, and in a container that sees the host's tree from a namespace below."""
    if cgroups.version is not CgroupVersion.V2 or ".." in Path(cgroups.memory_mount_root).parts:
        return None
    return cgroups.memcg_dir_of("self")
