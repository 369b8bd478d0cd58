"""The host's directories as one value: no other module names `/proc`, `/sys` and the like as a place to read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kickwatch.errors import ConfigError

PROC_VARIABLE = "KICKWATCH_HOST_PROC"


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

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> Self:
        """This machine's, with the proc file system that KICKWATCH_HOST_PROC names.

        In a container files of /proc may be covered: newer engines and kubelets cover /proc/interrupts. A mount of the
        host's /proc somewhere else has them all.
        """
        return cls(proc=Path(environment.get(PROC_VARIABLE) or cls.proc))

    def check(self) -> None:
        """Raise ConfigError if no proc file system is where the environment says: no start could succeed. Blocks."""
        if self.proc != type(self).proc and not (self.proc / "self" / "mountinfo").exists():
            remedy = f"set it to a mount of the host's /proc, or unset {PROC_VARIABLE}"
            raise ConfigError(f"{PROC_VARIABLE}: {self.proc} is no proc file system", remedy)


HOST = HostRoots.named(os.environ)
"""The machine that kickwatch runs on."""
