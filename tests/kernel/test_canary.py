"""The canary on this node's kernel: batches on both cgroup versions, and clean-up however it ends."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.native.driver import Helper, HelperError
from kickwatch.node.cgroup_removal import everybody, remove_tree
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes, parse_mountinfo, parse_pid_cgroup
from kickwatch.workload.canary import CHARGED_PIPES, Canary, remove_leftovers

pytestmark = pytest.mark.kernel

GROUP = f"kickwatch-test-canary-{os.getpid()}"


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """The cgroups of this node; the group of the test must not exist after it."""
    found = Cgroups.read()
    yield found
    left = remove_leftovers(found, GROUP)
    assert left == ()


@pytest.fixture
async def canary(cgroups: Cgroups, tmp_path: Path) -> AsyncIterator[Canary]:
    """A canary of 23 memcgs in a group of the test."""
    async with Canary(cgroups, 23, scratch=tmp_path, group=GROUP) as running:
        yield running
    assert not (cgroups.memory_root / GROUP).exists()
    assert files_in(tmp_path) == []


def files_in(directory: Path) -> list[str]:
    """The existing names."""
    return [path.name for path in directory.iterdir()]


def members(cgroups: Cgroups) -> list[Path]:
    """The existing memcgs."""
    return [path for path in (cgroups.memory_root / GROUP).iterdir() if path.is_dir()]


async def test_a_bare_memcg_is_charged(canary: Canary, cgroups: Cgroups) -> None:
    assert await canary.charges_kernel_memory()
    assert members(cgroups) == []


async def test_pipes_are_charged_to_the_memcg_in_which_they_were_made(canary: Canary, cgroups: Cgroups) -> None:
    """More than 32 pages on each of two CPUs, which statistics of v2 leave out before 5.13, until the removal."""
    await canary._ask(f"create 1 {CHARGED_PIPES}")
    (memcg,) = members(cgroups)
    for _ in range(30):  # v2's statistics may be two seconds old
        charged = await asyncio.to_thread(kmem_usage_bytes, memcg) or 0
        if charged > 2 * 33 * 4096:
            break
        await asyncio.sleep(0.1)
    assert charged > 2 * 33 * 4096
    await canary.remove_batch()
    assert members(cgroups) == []
    with pytest.raises(HelperError, match=r"0 to 256"):
        await canary._ask(f"create 1 {CHARGED_PIPES + 1}")
    with pytest.raises(HelperError, match="COUNT"):
        await canary._ask("create 1 x")


async def test_a_batch_exists_between_create_and_remove(canary: Canary, cgroups: Cgroups) -> None:
    for _ in range(3):
        duration_ns = await canary.create_batch()
        batch = members(cgroups)
        assert len(batch) == 23
        assert all((path / "cgroup.procs").read_text() == "" for path in batch)
        assert 0 < duration_ns < 10_000_000_000
        await canary.remove_batch()
        assert members(cgroups) == []


async def test_a_batch_of_another_size_and_a_removal_of_nothing(canary: Canary, cgroups: Cgroups) -> None:
    await canary.remove_batch()
    await canary.create_batch(5)
    assert len(members(cgroups)) == 5


async def test_each_memcg_of_a_batch_was_used(canary: Canary, cgroups: Cgroups) -> None:
    """A file created inside leaves kernel memory charged (v1 has the peak, which never falls)."""
    await canary.create_batch()
    peaks = [path / "memory.kmem.max_usage_in_bytes" for path in members(cgroups)]
    if not peaks[0].exists():
        pytest.skip("feature: cgroup v2 tells no peak of kernel memory")
    assert all(int(peak.read_text()) > 0 for peak in peaks)


async def test_a_second_batch_before_the_removal_is_refused(canary: Canary, cgroups: Cgroups) -> None:
    await canary.create_batch()
    with pytest.raises(HelperError, match="was not removed"):
        await canary.create_batch()
    assert len(members(cgroups)) == 23


async def test_the_child_is_in_its_first_cgroup_after_a_batch(cgroups: Cgroups, tmp_path: Path) -> None:
    home = await asyncio.to_thread(cgroups.memcg_dir_of, "self")
    parent = await asyncio.to_thread(cgroups.ensure_own, GROUP)
    async with Helper(["canary", parent, "3", cgroups.version.value, home, tmp_path]) as helper:
        await helper.ask("create", 30)
        assert await asyncio.to_thread(cgroups.memcg_dir_of, helper.pid) == home


async def test_the_remains_of_a_killed_run_are_removed_at_the_start(cgroups: Cgroups, tmp_path: Path) -> None:
    left = await asyncio.to_thread(cgroups.ensure_own, GROUP)
    (left / "kw-1-1").mkdir()
    async with Canary(cgroups, 2, scratch=tmp_path, group=GROUP):
        assert members(cgroups) == []


async def test_cancellation_during_a_batch_leaves_nothing(cgroups: Cgroups, tmp_path: Path) -> None:
    async def work() -> None:
        async with Canary(cgroups, 5000, scratch=tmp_path, group=GROUP) as running:
            await running.create_batch()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await until(lambda: (cgroups.memory_root / GROUP).exists() and len(members(cgroups)) >= 50)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (cgroups.memory_root / GROUP).exists()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true, at most ten seconds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


PARENT = """
import asyncio, sys
from pathlib import Path
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.canary import Canary

async def main():
    async with Canary(Cgroups.read(), 40, scratch=Path(sys.argv[1]), group=sys.argv[2]) as canary:
        await canary.create_batch()
        print("made", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_kill_9_of_the_parent_ends_the_child_which_removes_its_batch(cgroups: Cgroups, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path, GROUP], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"made\n"
        assert len(members(cgroups)) == 40
        parent.send_signal(signal.SIGKILL)
    asyncio.run(until(lambda: not members(cgroups)))


async def test_kill_9_of_the_child_is_reported_and_cleaned_up(cgroups: Cgroups, tmp_path: Path) -> None:
    async with Canary(cgroups, 7, scratch=tmp_path, group=GROUP) as running:
        await running.create_batch()
        assert running._helper is not None
        os.kill(running._helper.pid, signal.SIGKILL)
        with pytest.raises(HelperError, match="ended during `remove`"):
            await running.remove_batch()
        assert len(members(cgroups)) == 7
    assert not (cgroups.memory_root / GROUP).exists()


def test_processes_inside_are_not_ended_and_are_reported(cgroups: Cgroups) -> None:
    own = cgroups.ensure_own(GROUP)
    leaf = own / "leaf"  # a v2 cgroup with controllers for its children cannot contain processes
    leaf.mkdir()
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        (leaf / "cgroup.procs").write_text(str(sleeper.pid))
        assert remove_tree(own, attempts=2) == (leaf, own)
        assert sleeper.poll() is None
        assert remove_tree(own, kill=everybody) == ()
        assert sleeper.wait(10) == -signal.SIGKILL


def test_a_cgroup_of_others_is_not_removed(cgroups: Cgroups) -> None:
    with pytest.raises(CgroupError, match="not one of ours"):
        remove_tree(cgroups.memory_root)


@pytest.fixture
def unified() -> Iterator[tuple[Path, Path]]:
    """A group of the test on the v2 hierarchy, and the cgroup of this process."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    points = [mount.point for mount in mounts if mount.is_v2]
    if not points:
        pytest.skip("feature: no cgroup2 is mounted")
    parent = points[0] / GROUP
    parent.mkdir()
    yield parent, points[0] / cgroup_of("self").lstrip("/")
    assert remove_tree(parent) == ()


def cgroup_of(pid: int | str) -> str:
    """Path of the process on the v2 hierarchy."""
    return parse_pid_cgroup(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))[""]


async def test_cgroups_of_v2_are_entered_and_left(unified: tuple[Path, Path], tmp_path: Path) -> None:
    """Also without a memory controller there, on a hybrid node: entering and leaving is the same."""
    parent, home = unified
    async with Helper(["canary", parent, "23", "v2", home, tmp_path]) as helper:
        await helper.ask("create", 30)
        assert len(list(parent.glob("kw-*"))) == 23
        assert cgroup_of(helper.pid) == cgroup_of("self")
        await helper.ask("remove", 30)
        assert not list(parent.glob("kw-*"))


async def test_a_v2_cgroup_whose_parent_cannot_contain_processes(unified: tuple[Path, Path], tmp_path: Path) -> None:
    """The parent has controllers for its children: the child must return to the cgroup that it came from."""
    parent, home = unified
    controllers = (parent / "cgroup.controllers").read_text(encoding="ascii").split()
    if not controllers:
        pytest.skip("feature: the v2 hierarchy has no controller to enable")
    (parent / "cgroup.subtree_control").write_text(f"+{controllers[0]}", encoding="ascii")
    async with Helper(["canary", parent, "3", "v2", home, tmp_path]) as helper:
        await helper.ask("create", 30)
