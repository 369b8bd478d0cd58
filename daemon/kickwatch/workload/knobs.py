"""The kmem knobs of cgroup v1, written at the barrier and read back. Off by default.

runc ignores Docker's own fields for them (KernelMemory since 1.0.0-rc94; KernelMemoryTCP was never written), so
kickwatch writes the files. `memory.kmem.limit_in_bytes` is refused with ENOTSUPP since 5.16 ("memcg, kmem: further
deprecate kmem.limit_in_bytes") and ignored in silence by 6.1.y and 6.6+.

The TCP limit is a fault made on purpose: the first memcg that has one flips the static key memcg_sockets_enabled_key,
and the key flips back when the last such memcg is *freed*, which a dying memcg can delay for ever. So each container's
memcg is pushed out before the next one starts.
"""

import asyncio
from pathlib import Path

from kickwatch.node.cgroups import reclaim

KMEM_LIMIT = "memory.kmem.limit_in_bytes"
KMEM_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_FREED_DEADLINE_S = 5.0
_PUSH_INTERVAL_S = 0.1
_PAGE_BYTES = 4096


class Knobs:
    """Turns what the configuration asks for in each container's memcg, and says once what the kernel did not accept."""

    def __init__(
        self, *, kmem_limit_bytes: int = 0, kmem_tcp_limit_bytes: int = 0, parent: Path, proc: Path = Path("/proc")
    ) -> None:
        """Limits of 0 leave their knob alone. `parent` is the memcg directory above our containers."""
        self._limits = {KMEM_LIMIT: kmem_limit_bytes, KMEM_TCP_LIMIT: kmem_tcp_limit_bytes}
        self._parent = parent
        self._proc = proc
        self._memcgs_with_container: int | None = None
        self.notes: list[str] = []

    def turn(self, memcg: Path) -> None:
        """Write the limits into one container's memcg and read them back."""
        for name, limit in self._limits.items():
            if limit:
                self._turn_one(memcg / name, limit)
        if self._limits[KMEM_TCP_LIMIT]:
            self._memcgs_with_container = memory_cgroups(self._proc)

    async def after_container(self) -> None:
        """With the TCP limit: push the removed container's memcg out and wait until the kernel has freed it."""
        if self._memcgs_with_container is None:
            return
        before, self._memcgs_with_container = self._memcgs_with_container, None
        deadline = asyncio.get_running_loop().time() + _FREED_DEADLINE_S
        while await asyncio.to_thread(memory_cgroups, self._proc) >= before:
            if asyncio.get_running_loop().time() > deadline:
                self._note("a dying memcg kept its kmem TCP limit: the static key may stay on for later containers")
                return
            await asyncio.to_thread(reclaim, self._parent)
            await asyncio.sleep(_PUSH_INTERVAL_S)

    def _turn_one(self, path: Path, limit: int) -> None:
        if not path.exists():
            self._note(f"{path.name}: this kernel or cgroup version has no such knob")
            return
        try:
            path.write_text(f"{limit}\n", encoding="ascii")
        except OSError as error:
            self._note(f"{path.name}: the kernel refused the limit ({error.strerror})")
            return
        kept = int(path.read_text(encoding="ascii"))
        if abs(kept - limit) >= _PAGE_BYTES:
            self._note(f"{path.name}: the kernel ignores this knob (wrote {limit}, reads {kept})")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def memory_cgroups(proc: Path) -> int:
    """Number of cgroups in the memory hierarchy, dying ones included (their count falls when they are freed)."""
    for line in (proc / "cgroups").read_text(encoding="ascii").splitlines():
        if line.startswith("memory\t"):
            return int(line.split("\t")[2])
    return 0
