"""Whether bare memory cgroups are charged on cgroup v2: plain directories with the figures of kernels, a fake child.

No kernel before 5.9 with cgroup v2 can be had in the laboratory, so its figures are made up, after its source.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.canary import Canary


@dataclass
class FakeChild:
    """Makes a directory as the native child makes a memcg, with this memory.stat."""

    parent: Path
    statistics: str
    commands: list[str] = field(default_factory=list)

    async def ask(self, command: str, _deadline_s: float) -> SimpleNamespace:
        self.commands.append(command.partition(" ")[0])
        memcg = self.parent / "kw-1-0"
        if command.startswith("create 1 "):
            memcg.mkdir()
            (memcg / "memory.stat").write_text(self.statistics)
        else:
            (memcg / "memory.stat").unlink()
            memcg.rmdir()
        return SimpleNamespace(value=1)


def entered(parent: Path, statistics: str) -> tuple[Canary, FakeChild]:
    """A canary on cgroup v2, whose group is not charged for a bare child."""
    (parent / "memory.current").write_text("4096\n")
    canary, child = (
        Canary(Cgroups(CgroupVersion.V2, parent, "/", (parent,), Path("/proc"))),
        FakeChild(parent, statistics),
    )
    canary._parent, canary._helper = parent, child  # type: ignore[assignment]
    return canary, child


@pytest.mark.parametrize("statistics", ["anon 0\nslab 540672\n", "anon 0\nkernel 540672\nslab 0\n"])
async def test_a_kernel_that_does_not_charge_the_parent_shows_it_in_a_used_child(
    tmp_path: Path, statistics: str
) -> None:
    """Before 5.9. Without that a user's program that ends at once never gets a verdict there."""
    canary, child = entered(tmp_path, statistics)
    assert await canary.charges_kernel_memory()
    assert child.commands == ["create", "remove"]


@pytest.mark.parametrize("statistics", ["anon 40960\nslab 0\n", "anon 40960\nkernel 0\nslab 0\n", ""])
async def test_without_kernel_memory_in_a_used_child_nothing_is_proved(tmp_path: Path, statistics: str) -> None:
    """As with cgroup.memory=nokmem. The child's own pages are no kernel memory."""
    canary, child = entered(tmp_path, statistics)
    assert not await canary.charges_kernel_memory()
    assert child.commands == ["create", "remove"]


async def test_a_group_that_another_removed_meanwhile_is_named(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    canary, child = entered(group, "slab 540672\n")

    async def removed(_command: str, _deadline_s: float) -> SimpleNamespace:
        shutil.rmtree(group, ignore_errors=True)
        return SimpleNamespace(value=1)

    child.ask = removed  # type: ignore[method-assign]
    with pytest.raises(CgroupError, match="group: No such file"):
        await canary.charges_kernel_memory()
