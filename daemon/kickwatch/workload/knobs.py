"""The kmem limits of cgroup v1, written while a container waits at its barrier, and read back. Off by default.

runc ignores Docker's own fields for them (KernelMemory since 1.0.0-rc94; KernelMemoryTCP was never written), so
kickwatch writes the files. Writing `memory.kmem.limit_in_bytes` fails with ENOTSUPP since 5.16 ("memcg, kmem: further
deprecate kmem.limit_in_bytes") and has no effect in 6.1.y and 6.6+.

The TCP limit is a deliberate fault. The first memcg with one flips the static key memcg_sockets_enabled_key, and the
key flips back when the last such memcg is *freed*. A dying memcg can delay that for ever, so the memory of each
container's memcg is reclaimed before the next container starts.
"""

import asyncio
import itertools
from errno import ENODEV, ENOENT
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.node.cgroups import reclaim
from kickwatch.node.roots import HOST

KMEM_LIMIT = "memory.kmem.limit_in_bytes"
KMEM_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_FREED_TIMEOUT_S = 15.0
_RECLAIM_INTERVAL_S = 0.1
_MIN_RECLAIMS = 3
_PAGE_BYTES = 4096
_CGROUP_REMOVED = frozenset({ENOENT, ENODEV})  # errno of opening, and of using, a file of a removed cgroup


class Knobs:
    """Writes the configured limits into each container's memcg, and remarks once on what the kernel did not accept."""

    def __init__(
        self,
        *,
        kmem_limit_bytes: int = 0,
        kmem_tcp_limit_bytes: int = 0,
        parent: Path,
        proc: Path = HOST.proc,
        freed_timeout_s: float = _FREED_TIMEOUT_S,
    ) -> None:
        """A limit of 0 is not written. `parent` is the memcg directory above our containers.

        `freed_timeout_s` limits the wait until a removed memcg with a TCP limit is freed.
        """
        self._limits = {KMEM_LIMIT: kmem_limit_bytes, KMEM_TCP_LIMIT: kmem_tcp_limit_bytes}
        self._parent = parent
        self._proc = proc
        self._freed_timeout_s = freed_timeout_s
        self._memcgs_with_container: int | None = None
        self._remarks: dict[Remark, None] = {}  # insertion is atomic: several threads apply limits

    @property
    def remarks(self) -> list[Remark]:
        """What the kernel did not accept, without repetition."""
        return list(self._remarks)

    def apply(self, memcg: Path) -> None:
        """Write the limits into one container's memcg and read them back. Blocks. Raises CgroupError."""
        applied = {name for name, limit in self._limits.items() if limit and self._apply_one(memcg / name, limit)}
        if KMEM_TCP_LIMIT in applied:
            self._memcgs_with_container = memory_cgroups(self._proc)

    async def after_container(self) -> None:
        """After a container with a TCP limit: reclaim its memcg until the kernel has freed it.

        Reclaims several times at least. The count covers all memcgs of the node, and the kernel may free another
        dying one at any moment, which would also lower it.
        """
        if self._memcgs_with_container is None:
            return
        before, self._memcgs_with_container = self._memcgs_with_container, None
        deadline = asyncio.get_running_loop().time() + self._freed_timeout_s
        for reclaims in itertools.count(1):
            _ = await asyncio.to_thread(reclaim, self._parent)  # a failure is retried in the next round
            freed = await asyncio.to_thread(memory_cgroups, self._proc) < before
            if freed and reclaims >= _MIN_RECLAIMS:
                return
            if asyncio.get_running_loop().time() > deadline:
                text = "a dying memcg kept its kmem TCP limit: the static key may stay on for later containers"
                self._remarks.setdefault(Remark(RemarkKind.MEMCG_LINGERS, text))
                return
            await asyncio.sleep(_RECLAIM_INTERVAL_S)

    def _apply_one(self, path: Path, limit: int) -> bool:
        """True if the limit was written and reads back. A container that has exited in the meantime is no error."""
        if not path.exists():
            if path.parent.exists():
                self._remark(f"{path.name}: this kernel or cgroup version has no such knob")
            return False
        try:
            path.write_text(f"{limit}\n", encoding="ascii")
        except OSError as error:
            if error.errno not in _CGROUP_REMOVED:
                self._remark(f"{path.name}: the kernel refused the limit ({error.strerror})")
            return False
        actual = _read_back(path)
        if actual is not None and abs(actual - limit) >= _PAGE_BYTES:
            self._remark(f"{path.name}: the kernel ignores this knob (wrote {limit}, reads {actual})")
            return False
        return actual is not None

    def _remark(self, text: str) -> None:
        self._remarks.setdefault(Remark(RemarkKind.KNOB_IGNORED, text))


def _read_back(path: Path) -> int | None:
    """The value of a knob; None if its memcg is gone. Raises CgroupError."""
    try:
        return int(path.read_text(encoding="ascii"))
    except ValueError as error:
        raise CgroupError(f"{path} contains no number ({error})", "turn the knob off") from error
    except OSError as error:
        if error.errno in _CGROUP_REMOVED:
            return None
        raise CgroupError(f"{path} cannot be read back ({error.strerror})", "turn the knob off") from error


def memory_cgroups(proc: Path) -> int:
    """Number of cgroups in the memory hierarchy, including dying ones; it falls when they are freed.

    Raises CgroupError: on a node that accepted the limit the hierarchy exists.
    """
    path = proc / "cgroups"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise CgroupError(f"{path} cannot be read ({error.strerror})", "see that proc is mounted there") from error
    for line in lines:
        if line.startswith("memory\t"):
            return int(line.split("\t")[2])
    raise CgroupError(f"{path} has no memory hierarchy", "leave workload.kmem_tcp_limit_bytes out")
