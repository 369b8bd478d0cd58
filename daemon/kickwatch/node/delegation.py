"""cgroup v2 under systemd: the part of the tree that is ours to shape, and the leaf the daemon moves to.

Below a unit with `Delegate=yes` we may make cgroups; elsewhere the tree is systemd's alone (its document "Control Group
APIs and Delegation"). A v2 cgroup hands controllers on only while no process is in it, so the daemon moves out of its
own cgroup into a leaf first. systemd marks a delegated cgroup with an extended attribute.
"""

import os
from contextlib import suppress
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups, CgroupVersion

LEAF = "daemon"
_MARKS = ("trusted.delegate", "user.delegate")  # since systemd 236 for root, since 251 for all


def delegated(cgroup: Path) -> bool:
    """Whether systemd gave this cgroup away."""
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(cgroup, mark) == b"1":
                return True
    return False


def enter_leaf(cgroups: Cgroups) -> Path | None:
    """Move this process into the leaf below its delegated v2 cgroup; returns the leaf, None where nothing is delegated.

    To be called before any child is started: they are born where their parent is. Raises CgroupError.
    """
    if cgroups.version is not CgroupVersion.V2:
        return None
    own = cgroups.memcg_dir_of("self")
    if own.name == LEAF and delegated(own.parent):
        return own
    if not delegated(own):
        return None
    leaf = own / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        what = f"{leaf} cannot be entered ({error.strerror})"
        raise CgroupError(what, "run in the cgroup namespace of the host, with Delegate=yes in the unit") from error
    return leaf


def own_base(cgroups: Cgroups) -> Path:
    """Where cgroups of our own belong: below the unit if the daemon is in its leaf, else at the memory root."""
    if cgroups.version is CgroupVersion.V2:
        own = cgroups.memcg_dir_of("self")
        if own.name == LEAF and delegated(own.parent):
            return own.parent
    return cgroups.memory_root
