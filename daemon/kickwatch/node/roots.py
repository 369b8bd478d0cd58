"""The host's directories as one value: no other module names `/proc`, `/sys` and the like as a place to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class HostRoots:
    """Where the host's directories are. `root` is the directory that mount points are relative to."""

    root: Path = Path("/")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    run: Path = Path("/run")
    etc: Path = Path("/etc")

    @classmethod
    def below(cls, tree: Path) -> Self:
        """The roots of a copy of a host's directories, as tests make it: `tree`/proc, `tree`/sys and so on."""
        return cls(root=tree, proc=tree / "proc", sys=tree / "sys", run=tree / "run", etc=tree / "etc")


HOST = HostRoots()
"""The machine that kickwatch runs on."""
