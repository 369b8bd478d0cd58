"""The kmem knobs of cgroup v1, written at the barrier and read back. Off by default.

runc ignores Docker's own fields for them (KernelMemory since 1.0.0-rc94; KernelMemoryTCP was never written), so
kickwatch writes the files. `memory.kmem.limit_in_bytes` is refused with ENOTSUPP since 5.16 ("memcg, kmem: further
deprecate kmem.limit_in_bytes") and ignored in silence by 6.1.y and 6.6+.

The TCP limit is a fault made on purpose: the first memcg that has one flips the static key memcg_sockets_enabled_key,
and the key flips back when the last such memcg is *freed*, which a dying memcg can delay for ever. So each container's
memcg is pushed out before the next one starts.
"""

import asyncio
import itertools
from errno import ENODEV, ENOENT
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.node.cgroups import reclaim

KMEM_LIMIT = "memory.kmem.limit_in_bytes"
KMEM_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_FREED_DEADLINE_S = 15.0
_PUSH_INTERVAL_S = 0.1
_PUSHES_AT_LEAST = 3
_PAGE_BYTES = 4096
_ENDED = frozenset({ENOENT, ENODEV})  # what opening, and using, a file of a removed cgroup gives


class Knobs:
    """Turns what the configuration asks for in each container's memcg, and says once what the kernel did not accept."""

    def __init__(
        self,
        *,
        kmem_limit_bytes: int = 0,
        kmem_tcp_limit_bytes: int = 0,
        parent: Path,
        proc: Path = Path("/proc"),
        freed_deadline_s: float = _FREED_DEADLINE_S,
    ) -> None:
        """Limits of 0 leave their knob alone. `parent` is the memcg directory above our containers.

        `freed_deadline_s` bounds the wait for a removed memcg with a TCP limit.
        """
        self._limits = {KMEM_LIMIT: kmem_limit_bytes, KMEM_TCP_LIMIT: kmem_tcp_limit_bytes}
        self._parent = parent
        self._proc = proc
        self._freed_deadline_s = freed_deadline_s
        self._memcgs_with_container: int | None = None
        self._said: dict[Remark, None] = {}  # insertion is atomic: containers reach their barriers in several threads

    @property
    def remarks(self) -> list[Remark]:
        """What the kernel did not accept, each thing once."""
        return list(self._said)

    def turn(self, memcg: Path) -> None:
        """Write the limits into one container's memcg and read them back. It blocks. Raises CgroupError."""
        kept = {name for name, limit in self._limits.items() if limit and self._turn_one(memcg / name, limit)}
        if KMEM_TCP_LIMIT in kept:
            self._memcgs_with_container = memory_cgroups(self._proc)

    async def after_container(self) -> None:
        """Where a TCP limit was set: push the removed container's memcg out and wait until the kernel has freed it.

        Pushed several times at least: the count tells of all memcgs on the node, and one that another left dying may
        be freed at any moment, by the kernel's own reclaim too.
        """
        if self._memcgs_with_container is None:
            return
        before, self._memcgs_with_container = self._memcgs_with_container, None
        deadline = asyncio.get_running_loop().time() + self._freed_deadline_s
        for pushes in itertools.count(1):
            _ = await asyncio.to_thread(reclaim, self._parent)  # what does not go now goes next time
            freed = await asyncio.to_thread(memory_cgroups, self._proc) < before
            if freed and pushes >= _PUSHES_AT_LEAST:
                return
            if asyncio.get_running_loop().time() > deadline:
                text = "a dying memcg kept its kmem TCP limit: the static key may stay on for later containers"
                self._said.setdefault(Remark(RemarkKind.MEMCG_LINGERS, text))
                return
            await asyncio.sleep(_PUSH_INTERVAL_S)

    def _turn_one(self, path: Path, limit: int) -> bool:
        """True when the limit was written and reads back. A container that has ended meanwhile is no error."""
        if not path.exists():
            if path.parent.exists():
                self._ignored(f"{path.name}: this kernel or cgroup version has no such knob")
            return False
        try:
            path.write_text(f"{limit}\n", encoding="ascii")
        except OSError as error:
            if error.errno not in _ENDED:
                self._ignored(f"{path.name}: the kernel refused the limit ({error.strerror})")
            return False
        kept = _read_back(path)
        if kept is not None and abs(kept - limit) >= _PAGE_BYTES:
            self._ignored(f"{path.name}: the kernel ignores this knob (wrote {limit}, reads {kept})")
            return False
        return kept is not None

    def _ignored(self, text: str) -> None:
        self._said.setdefault(Remark(RemarkKind.KNOB_IGNORED, text))


def _read_back(path: Path) -> int | None:
    """What a knob holds; None when its memcg is gone. Raises CgroupError."""
    try:
        return int(path.read_text(encoding="ascii"))
    except ValueError as error:
        raise CgroupError(f"{path} holds no number ({error})", "turn the knob off") from error
    except OSError as error:
        if error.errno in _ENDED:
            return None
        raise CgroupError(f"{path} cannot be read back ({error.strerror})", "turn the knob off") from error


def memory_cgroups(proc: Path) -> int:
    """Number of cgroups in the memory hierarchy, dying ones included (their count falls when they are freed).

    Raises CgroupError: a node whose limit was accepted has that hierarchy.
    """
    path = proc / "cgroups"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise CgroupError(f"{path} cannot be read ({error.strerror})", "see that proc is mounted there") from error
    for line in lines:
        if line.startswith("memory\t"):
            return int(line.split("\t")[2])
    raise CgroupError(f"{path} names no memory hierarchy", "leave workload.kmem_tcp_limit_bytes out")
