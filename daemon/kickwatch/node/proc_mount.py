"""How proc is mounted: with hidepid it hides other users' processes, with subset all but processes (proc(5)).

Hidden is a process that the reader must not trace (PTRACE_MODE_READ): one of another user, or with a capability that
the reader lacks. With hidepid 1 and 2 the members of the group `gid` see everything.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from errno import EPERM
from pathlib import Path

_OFF = frozenset({"", "0", "off"})
# "proc: use human-readable values for hidepid" (5.8).
_PTRACEABLE = frozenset({"4", "ptraceable"})


@dataclass(frozen=True)
class ProcMount:
    """The options of a mount of proc. `hidepid`: as the kernel prints it, empty if nothing is hidden.

    `subset`: `pid` if there are only processes, "proc: add option to mount only a pids subset" (5.8).
    """

    hidepid: str = ""
    gid: str = ""
    subset: str = ""

    @property
    def hides(self) -> bool:
        """True if it hides processes from a reader that may not trace them and is not in the group."""
        return bool(self.hidepid)

    @property
    def options(self) -> str:
        """As mount(8) takes them."""
        return f"hidepid={self.hidepid}" + (f",gid={self.gid}" if self.gid else "")

    @property
    def group_helps(self) -> bool:
        """True if the members of its group see everything. Without `gid` that is the group root."""
        return self.hides and self.hidepid not in _PTRACEABLE

    def hides_from(self, groups: Collection[int]) -> bool:
        """True if it hides processes from a process in `groups` that may not trace them."""
        return self.hides and not (self.group_helps and int(self.gid or 0) in groups)


def read_proc_mount(proc: Path) -> ProcMount:
    """How `proc` is mounted; nothing is hidden if that cannot be read."""
    try:
        text = (proc / "self" / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ProcMount()
    return parse_proc_mount(text, proc)


def parse_proc_mount(mountinfo: str, proc: Path) -> ProcMount:
    """The newest mount of type proc at `proc`: it covers those before it."""
    found = ProcMount()
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        words, kind = fields.split(), tail.split()
        if len(words) < 5 or len(kind) < 3 or kind[0] != "proc" or words[3] != "/" or words[4] != str(proc):
            continue
        options = dict(option.partition("=")[::2] for option in kind[2].split(","))
        hidepid = options.get("hidepid", "")
        found = ProcMount("" if hidepid in _OFF else hidepid, options.get("gid", ""), options.get("subset", ""))
    return found


def hidden(proc: Path, pid: int, mount: ProcMount) -> bool:
    """True if process `pid` exists, and `proc` does not show it, mounted with the options of `mount`."""
    if pid <= 0 or not mount.hides:
        return False
    try:
        (proc / str(pid) / "comm").read_bytes()
    except OSError:
        return _exists(pid)
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == EPERM
    return True
