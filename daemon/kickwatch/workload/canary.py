"""The canary: a batch of bare memory cgroups made, entered, used and removed by a native child.

It exercises the creation path of memory cgroups without an engine and nearly without noise (CAL - TLB: 0.017 per
batch of 100, measured), so one batch of 40 ms shows what hundreds of containers would hide.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Self

from kickwatch.errors import CgroupError
from kickwatch.native.driver import Helper
from kickwatch.node.cgroups import Cgroups, CgroupVersion, handed_on_by, reclaim, remove_tree
from kickwatch.node.delegation import own_base
from kickwatch.process.cancellation import run_shielded

CANARY_GROUP = "kickwatch-canary"
REPRODUCE_GROUP = "kickwatch-reproduce"
DEADLINE_S = 60.0


class Canary:
    """The cgroup in which batches are made, and the child that makes them. Use as `async with Canary(cgroups)`."""

    def __init__(
        self,
        cgroups: Cgroups,
        memcgs: int = 100,
        *,
        scratch: Path | None = None,
        group: str = CANARY_GROUP,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`memcgs`: the size of a batch. `scratch`: where each member makes and unlinks its file; by default TMPDIR.

        `deadline_s` bounds each command.
        """
        self.memcgs = memcgs
        self._cgroups = cgroups
        self._scratch = scratch
        self._group = group
        self._deadline_s = deadline_s
        self._helper: Helper | None = None
        self._parent = Path()
        self._held: dict[Path, tuple[int, int] | None] = {}
        self._hands_on: tuple[Path, ...] = ()

    async def __aenter__(self) -> Self:
        """Remove what a killed run left, make the group, start the child. Raises CgroupError, HelperError."""
        preparing = asyncio.to_thread(prepare_group, self._cgroups, self._group, self._scratch)
        try:
            self._parent, home, scratch = await run_shielded(preparing)
            self._held = await asyncio.to_thread(lambda: {path: _identity(path) for path in (self._parent, scratch)})
            self._hands_on = (self._parent.parent, self._parent) if self._cgroups.version is CgroupVersion.V2 else ()
            helper = Helper(["canary", self._parent, str(self.memcgs), self._cgroups.version.value, home, scratch])
            self._helper = await helper.__aenter__()
        except BaseException:
            await clear_group(self._cgroups, self._group)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the child, which removes its batch, then the group. Raises CgroupError if something would stay."""
        helper, self._helper = self._helper, None
        try:
            if helper is not None:
                await helper.__aexit__(kind, error, trace)
        finally:
            await clear_group(self._cgroups, self._group)

    async def restart(self) -> None:
        """A new child in place of one that may have failed or lost step; its batch is removed."""
        await self.__aexit__(None, None, None)
        await self.__aenter__()

    async def restore(self) -> str:
        """Start again where others have removed the group, its child, or the scratch directory, or took the memory
        controller from the group; returns what was done, empty for nothing. Raises CgroupError, HelperError, OSError.
        """
        gone = await self._gone()
        if not gone:
            return ""
        await self.restart()
        return f"{gone}; the canary is made again"

    async def _gone(self) -> str:
        if self._helper is None or not self._helper.lives:
            return "the child of the canary has ended"
        return await asyncio.to_thread(self._moved)

    def _moved(self) -> str:
        """What is another directory than the one that the child holds open, or none."""
        for directory, held in self._held.items():
            if _identity(directory) != held:
                return f"{directory} was removed"
        for directory in self._hands_on:
            if "memory" not in handed_on_by(directory):
                return f"the memory controller was switched off in {directory}/cgroup.subtree_control"
        return ""

    async def pays_for_kernel_memory(self) -> bool:
        """Whether the group is charged for a bare child, on cgroup v2. To be asked before the first batch.

        No process has been in the group then, so what it is charged is kernel memory ("mm: memcg: charge memcg percpu
        memory to the parent cgroup", 5.9): there at once, when statistics may be seconds old. Raises CgroupError.
        """
        return await run_shielded(asyncio.to_thread(_pays_for_a_child, self._parent))

    async def create_batch(self, memcgs: int | None = None) -> int:
        """Make, enter, use and leave a batch (of another size, if given). Returns its duration in nanoseconds."""
        return await self._ask(f"create {memcgs or self.memcgs}")

    async def remove_batch(self) -> int:
        """Remove the batch; nothing to do is no error. Returns the duration in nanoseconds."""
        return await self._ask("remove")

    async def _ask(self, command: str) -> int:
        if self._helper is None:
            raise CgroupError(f"{self._group} is not set up", "enter it with `async with`")
        # Cancelled in mid-batch, the child would answer to nobody and take no further command, not even `remove`.
        answer = await run_shielded(self._helper.ask(command, self._deadline_s))
        return answer.value or 0


def prepare_group(cgroups: Cgroups, group: str, scratch: Path | None) -> tuple[Path, Path, Path]:
    """Make a group for a native child; returns it, the cgroup the child comes from, and where it may make files.

    What a killed run left goes first, be it of a trial or of `kickwatch reproduce`: only one of them runs at a time.
    """
    groups = (CANARY_GROUP, REPRODUCE_GROUP)
    for left in groups if group in groups else (group,):
        remove_leftovers(cgroups, left)
    home = cgroups.memcg_dir_of("self")
    return cgroups.ensure_own(group, own_base(cgroups)), home, scratch or _temporary()


def _temporary() -> Path:
    """TMPDIR, or another directory for temporary files where it was removed. Raises FileNotFoundError without any."""
    if not Path(tempfile.gettempdir()).is_dir():
        tempfile.tempdir = None  # chosen once and for all otherwise
    return Path(tempfile.gettempdir())


def _identity(directory: Path) -> tuple[int, int] | None:
    """Which directory of that name it is; None where there is none."""
    try:
        found = directory.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _pays_for_a_child(parent: Path) -> bool:
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
        raise CgroupError(what, "is memory a controller there?") from error


async def clear_group(cgroups: Cgroups, group: str) -> None:
    """Remove a group at the end of its use; raises CgroupError if something stays.

    Bounded by the attempts of remove_tree, so cancellations wait for it.
    """
    remaining = await run_shielded(asyncio.to_thread(remove_leftovers, cgroups, group))
    if remaining:
        raise CgroupError(f"{remaining[0]} is in use and stays", "end the processes in its cgroup.procs")


def remove_leftovers(cgroups: Cgroups, group: str = CANARY_GROUP) -> tuple[Path, ...]:
    """Remove the group of a killed run and all below it; returns what remains because processes are in it.

    It is looked for where it is made now, and at the memory root, where a run outside the service made it.
    """
    remaining: tuple[Path, ...] = ()
    for base in dict.fromkeys((own_base(cgroups), cgroups.memory_root)):
        directory = base / group
        if directory.is_dir():
            # Removed memcgs live on as dying ones while pages are charged to them: pushing those out now keeps runs
            # from piling them up. What cannot be pushed out goes when its pages do.
            _ = reclaim(directory)
            remaining += remove_tree(directory)
    return remaining
