"""The mount that a killed runc leaves: before 1.2 it starts itself again from a read-only bind mount of its binary.

That mount is made in the runtime's state of the container (`runc.XXXXXX`) and detached a moment later. If runc is
killed between the two, it stays, and the file below it cannot be removed (EBUSY).
"""

import ctypes
import os
from pathlib import Path

from kickwatch.node.cgroups import unescape

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # umount(2)


def mounts_below(mountinfo: str, directory: Path) -> list[Path]:
    """The mount points below `directory`, the newest first. `mountinfo`: as proc_pid_mountinfo(5) says."""
    words = (line.split(" ") for line in mountinfo.splitlines())
    points = (Path(unescape(word[4])) for word in words if len(word) > 4)
    return [point for point in points if directory in point.parents][::-1]


def detach_below(directory: Path, proc: Path) -> None:
    """Detach what is mounted below `directory`, in our mount namespace. What stays mounted cannot be removed later."""
    found = (proc / "self" / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for point in mounts_below(found, directory.resolve()):
        ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
