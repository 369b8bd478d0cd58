"""The canary: a native child process makes, enters, uses and removes a batch of bare memory cgroups.

This exercises the creation path of memory cgroups without an engine and almost without noise (measured: CAL - TLB is
0.017 per batch of 100), so one batch of 40 ms shows what the noise of hundreds of containers would hide.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Self

from kickwatch.errors import CgroupError
from kickwatch.native.driver import Helper
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups, CgroupVersion, enabled_controllers, kmem_usage_bytes, reclaim
from kickwatch.node.delegation import own_base, writable
from kickwatch.process.cancellation import run_shielded

CANARY_GROUP = "kickwatch-canary"
REPRODUCE_GROUP = "kickwatch-reproduce"
COMMAND_TIMEOUT_S = 60.0
CHARGED_PIPES = 256  # more than 32 pages on one of two CPUs; their descriptors are half of the usual limit


class Canary:
    """The cgroup that holds the batches, and the child that makes them. Use as `async with Canary(cgroups)`."""

    def __init__(
        self,
        cgroups: Cgroups,
        memcgs: int = 100,
        *,
        scratch: Path | None = None,
        group: str = CANARY_GROUP,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        """`memcgs`: the size of a batch. `scratch`: where a file is made and unlinked in each memcg; default TMPDIR.

        `command_timeout_s` limits each command to the child.
        """
        self.memcgs = memcgs
        self._cgroups = cgroups
        self._scratch = scratch
        self._group = group
        self._command_timeout_s = command_timeout_s
        self._helper: Helper | None = None
        self._parent = Path()
        self._open_dirs: dict[Path, tuple[int, int] | None] = {}  # what the child holds open, with its identity
        self._delegating: tuple[Path, ...] = ()  # cgroup v2: must have `memory` in their cgroup.subtree_control

    async def __aenter__(self) -> Self:
        """Remove leftovers of a killed run, make the group, start the child. Raises CgroupError, HelperError."""
        preparing = asyncio.to_thread(prepare_group, self._cgroups, self._group, self._scratch)
        try:
            self._parent, home, scratch = await run_shielded(preparing)
            self._open_dirs = await asyncio.to_thread(_identities, self._parent, scratch)
            self._delegating = (self._parent.parent, self._parent) if self._cgroups.version is CgroupVersion.V2 else ()
            helper = Helper(["canary", self._parent, str(self.memcgs), self._cgroups.version.value, home, scratch])
            self._helper = await helper.__aenter__()
        except BaseException:
            await clear_group(self._cgroups, self._group)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the child, which removes its batch, then remove the group. Raises CgroupError if something stays."""
        helper, self._helper = self._helper, None
        try:
            if helper is not None:
                await helper.__aexit__(kind, error, trace)
        finally:
            await clear_group(self._cgroups, self._group)

    async def restart(self) -> None:
        """Replace the child, which may have failed or missed an answer; its batch is removed."""
        await self.__aexit__(None, None, None)
        await self.__aenter__()

    async def restore(self) -> str:
        """Restart if another process removed the group, the child or the scratch directory, or disabled the group's
        memory controller. Returns what happened, empty if nothing did. Raises CgroupError, HelperError, OSError.
        """
        damage = await self._damage()
        if not damage:
            return ""
        await self.restart()
        return f"{damage}; the canary was re-created"

    async def _damage(self) -> str:
        if self._helper is None or not self._helper.lives:
            return "the child of the canary has ended"
        return await asyncio.to_thread(self._damaged_directory)

    def _damaged_directory(self) -> str:
        """A directory that was removed or replaced while the child has it open, or that lost the memory controller."""
        for directory, identity in self._open_dirs.items():
            if _identity(directory) != identity:
                return f"{directory} was removed"
        for directory in self._delegating:
            if "memory" not in enabled_controllers(directory):
                return f"the memory controller was switched off in {directory}/cgroup.subtree_control"
        return ""

    async def charges_kernel_memory(self) -> bool:
        """Whether the kernel charges kernel memory to bare memcgs. Call it before the first batch. Raises CgroupError.

        On cgroup v2 the group is charged for a bare child ("mm: memcg: charge memcg percpu memory to the parent
        cgroup", 5.9): no process has been in it, so any charge is kernel memory. It shows at once, while the statistics
        may be seconds old. On older kernels, and on v1, it shows in a memcg that the child has entered and used: v1 has
        a counter, v2 a statistic, which before "mm: memcontrol: switch to rstat" (5.13) leaves out up to 32 pages of
        each CPU. So the child holds pipes there, of 2 KiB each.
        """
        on_v2 = self._cgroups.version is CgroupVersion.V2
        if on_v2 and await run_shielded(asyncio.to_thread(_child_is_charged, self._parent)):
            return True
        await self._ask(f"create 1 {CHARGED_PIPES}")
        try:
            return await run_shielded(asyncio.to_thread(_some_child_has_kmem, self._parent))
        finally:
            await self.remove_batch()

    async def create_batch(self, memcgs: int | None = None) -> int:
        """Make, enter, use and leave a batch; `memcgs` overrides its size. Returns the duration in nanoseconds."""
        return await self._ask(f"create {memcgs or self.memcgs}")

    async def remove_batch(self) -> int:
        """Remove the batch, if there is one. Returns the duration in nanoseconds."""
        return await self._ask("remove")

    async def _ask(self, command: str) -> int:
        if self._helper is None:
            raise CgroupError(f"{self._group} is not set up", "enter it with `async with`")
        # A cancellation during a batch would lose the child's answer, and with it every further command, also `remove`.
        answer = await run_shielded(self._helper.ask(command, self._command_timeout_s))
        return answer.value or 0


def prepare_group(cgroups: Cgroups, group: str, scratch: Path | None) -> tuple[Path, Path, Path]:
    """Make a group for a native child. Returns the group, the child's home cgroup, and the directory for its files.

    First removes the leftovers of killed runs, both of a trial and of `kickwatch reproduce`: only one runs at a time.
    """
    groups = (CANARY_GROUP, REPRODUCE_GROUP)
    for name in groups if group in groups else (group,):
        remove_leftovers(cgroups, name)
    home = cgroups.memcg_dir_of("self")
    return cgroups.ensure_own(group, own_base(cgroups)), home, scratch or _temporary()


def _temporary() -> Path:
    """TMPDIR, or another temporary directory if TMPDIR was removed. Raises FileNotFoundError if there is none."""
    if not Path(tempfile.gettempdir()).is_dir():
        tempfile.tempdir = None  # the module chooses only once otherwise
    return Path(tempfile.gettempdir())


def _identities(*directories: Path) -> dict[Path, tuple[int, int] | None]:
    return {directory: _identity(directory) for directory in directories}


def _identity(directory: Path) -> tuple[int, int] | None:
    """Device and inode number, which differ if the directory is replaced; None if there is none."""
    try:
        status = directory.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _child_is_charged(parent: Path) -> bool:
    child, counter = parent / "bare", parent / "memory.current"
    try:
        before = int(counter.read_text(encoding="ascii"))
        child.mkdir()
        try:
            return int(counter.read_text(encoding="ascii")) > before
        finally:
            child.rmdir()
    except OSError as error:
        what = f"{error.filename or counter}: {error.strerror}"
        raise CgroupError(what, "is the memory controller enabled there?") from error


def _some_child_has_kmem(parent: Path) -> bool:
    try:
        return any(kmem_usage_bytes(child) for child in parent.iterdir() if child.is_dir())
    except OSError as error:
        what = f"{error.filename or parent}: {error.strerror}"
        raise CgroupError(what, "find out what removes cgroups there") from error


async def clear_group(cgroups: Cgroups, group: str) -> None:
    """Remove a group after its use. Raises CgroupError if something stays.

    Cancellations wait for it: remove_tree limits its attempts.
    """
    remaining = await run_shielded(asyncio.to_thread(remove_leftovers, cgroups, group))
    if remaining:
        raise CgroupError(f"{remaining[0]} is in use and stays", "end the processes in its cgroup.procs")


def remove_leftovers(cgroups: Cgroups, group: str = CANARY_GROUP) -> tuple[Path, ...]:
    """Remove the group of a killed run and all below it. Returns what remains because processes are in it.

    Looks where groups are made now, and at the memory root, where a run outside the service makes them. What a service
    may not remove there is left for the next such run.
    """
    remaining: tuple[Path, ...] = ()
    bases = dict.fromkeys((own_base(cgroups), cgroups.memory_root))
    for base in bases:
        directory = base / group
        if directory.is_dir() and (len(bases) == 1 or writable(base)):
            # A removed memcg stays as a dying one while pages are charged to it. Reclaiming them now keeps dying memcgs
            # from accumulating over many runs; one that stays is freed when its last page is.
            _ = reclaim(directory)
            remaining += remove_tree(directory)
    return remaining
