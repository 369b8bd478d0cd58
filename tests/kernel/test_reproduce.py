"""The test of 2017 on this node's kernel, shortened: verdict, speed compared with Python, refusals, clean-up."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.errors import KickwatchError
from kickwatch.experiment.native_loops import native_loops, run
from kickwatch.experiment.reproduce import Settings
from kickwatch.experiment.reproduce_report import Memory, report
from kickwatch.experiment.reproduce_verdict import verdict
from kickwatch.native.driver import Helper, HelperError
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups, CgroupVersion, parse_mountinfo, parse_pid_cgroup
from kickwatch.observe.request_cells import RequestCounts
from kickwatch.workload.canary import remove_leftovers

pytestmark = pytest.mark.kernel

GROUP = f"kickwatch-test-reproduce-{os.getpid()}"
SHORT = Settings(loops=300, background_s=1, quiet_s=1, watch_s=1, settle_s=10, poll_s=0.1)


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """The cgroups of this node; the test's group must not exist afterwards, without our help."""
    found = Cgroups.read()
    yield found
    left = (found.memory_root / GROUP).exists()
    remove_leftovers(found, GROUP)
    assert not left


def ignore(_done: int) -> None:
    """Progress is ignored."""


async def test_a_short_run_has_a_verdict_and_leaves_nothing(cgroups: Cgroups) -> None:
    steps: list[tuple[str, int, int]] = []
    outcome = await run(cgroups, SHORT, progress=lambda *step: steps.append(step), group=GROUP)
    lines = report(outcome).splitlines()
    assert re.fullmatch(r"300 loops: \d+ => \d+ \(\+\d+ ipis\)", lines[0])
    assert steps[0][0] == "create"
    assert ("create", 300, 300) in steps
    assert outcome.creation.loop_ns > 300 * 10_000
    assert 1000 < outcome.bytes_per_memcg < 10_000_000
    assert outcome.limit == "set"
    assert outcome.kmem in ({"absent"} if cgroups.version is CgroupVersion.V2 else {"set", "noop", "refused:524"})
    assert verdict(outcome).patch.value in lines[-1]


async def test_the_limit_is_set_in_each_memcg(cgroups: Cgroups) -> None:
    name = "memory.max" if cgroups.version is CgroupVersion.V2 else "memory.limit_in_bytes"
    async with native_loops(cgroups, group=GROUP) as loops:
        created = await loops.create(30, ignore)
        limits = [path.read_text(encoding="ascii") for path in loops.parent.glob(f"*/{name}")]
        assert limits == ["1073741824\n"] * 30
        if created.kmem == "noop":
            kmem = next(loops.parent.glob("*/memory.kmem.limit_in_bytes")).read_text(encoding="ascii")
            assert int(kmem) != 1 << 30
        assert await loops.remove(30) > 0


async def test_attributed_broadcasts_reach_the_verdict(cgroups: Cgroups) -> None:
    """A probe that counts one more broadcast at each read: the run must report that it did not come to rest."""
    count = iter(range(10_000))
    settings = Settings(loops=25, background_s=0.1, quiet_s=0.5, watch_s=0.5, settle_s=1.5, poll_s=0.1)
    outcome = await run(cgroups, settings, probed=lambda: RequestCounts(*[next(count)] * 4, lost=0), group=GROUP)
    assert not outcome.creation.quiesced
    assert "attributed" in verdict(outcome).why


async def test_more_memcgs_than_memory_allows_are_refused_after_20(cgroups: Cgroups) -> None:
    with pytest.raises(KickwatchError, match=r"memory cgroups of .*--force"):
        await run(cgroups, Settings(loops=1_000_000, background_s=0.1), group=GROUP)


async def test_cancellation_in_the_middle_leaves_nothing(cgroups: Cgroups) -> None:
    began = asyncio.Event()
    settings = Settings(loops=20_000, background_s=0.1, force=True)
    work = asyncio.create_task(run(cgroups, settings, progress=lambda *_: began.set(), group=GROUP))
    await asyncio.wait_for(began.wait(), 20)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_child_that_hangs_is_killed_at_its_deadline(cgroups: Cgroups, tmp_path: Path) -> None:
    parent = await asyncio.to_thread(cgroups.ensure_own, GROUP)
    home = await asyncio.to_thread(cgroups.memcg_dir_of, "self")
    start = time.monotonic()
    helper = Helper(["reproduce", parent, cgroups.version.value, home, tmp_path], stop_s=5)
    async with helper:
        with pytest.raises(HelperError, match=r"no answer to `create 20000 0` in 0\.05 s"):
            await helper.ask("create 20000 0", 0.05)
        with pytest.raises(HelperError, match="lost a command"):
            await helper.ask("remove", 1)
    assert time.monotonic() - start < 30
    assert await asyncio.to_thread(remove_leftovers, cgroups, GROUP) == ()


async def test_bad_arguments_are_reported(tmp_path: Path) -> None:
    with pytest.raises(HelperError, match="No such file or directory"):
        await Helper(["reproduce", tmp_path / "gone", "v1", tmp_path, tmp_path]).__aenter__()
    with pytest.raises(HelperError, match=r"status 2.*barriers MANY SINGLE"):
        await Helper(["reproduce", tmp_path]).__aenter__()


@pytest.fixture
def unified() -> Iterator[tuple[Path, Path]]:
    """A group of the test on a v2 hierarchy without memory controller, and the cgroup of this process."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    points = [mount.point for mount in mounts if mount.is_v2]
    if not points:
        pytest.skip("feature: no cgroup2 is mounted")
    if "memory" in (points[0] / "cgroup.controllers").read_text(encoding="ascii").split():
        pytest.skip("feature: memory is on cgroup v2 here, the other tests take that path")
    parent = points[0] / GROUP
    parent.mkdir()
    home = parse_pid_cgroup(Path("/proc/self/cgroup").read_text(encoding="utf-8"))[""]
    yield parent, points[0] / home.lstrip("/")
    assert remove_tree(parent) == ()


async def test_cgroup_v2_without_a_memory_controller(unified: tuple[Path, Path], tmp_path: Path) -> None:
    """On a hybrid node v2 has no memory controller: the loop runs, and reports that the limit is absent."""
    parent, home = unified
    async with Helper(["reproduce", parent, "v2", home, tmp_path]) as helper:
        answer = await helper.ask("create 23 0", 30)
        assert dict(answer.fields) == {"limit": "absent", "kmem": "absent"}
        assert len(list(parent.glob("kw-*"))) == 23
        await helper.ask("remove", 30)


def loop_in_python(cgroups: Cgroups, parent: Path, home: Path, scratch: Path, loops: int) -> float:
    """The steps of the test in plain Python; returns the seconds. It removes what it creates."""
    is_v2 = cgroups.version is CgroupVersion.V2
    limits = ["memory.max"] if is_v2 else ["memory.limit_in_bytes", "memory.kmem.limit_in_bytes"]
    start = time.perf_counter()
    for i in range(loops):
        memcg = parent / f"python-{i}"
        memcg.mkdir()
        for limit in limits:
            try:
                (memcg / limit).write_text(str(1 << 30))
            except OSError as error:
                assert error.errno == 524  # noqa: PT017 -- any other error is a bug
        (memcg / "cgroup.procs").write_text(str(os.getpid()))
        (scratch / "file").touch()
        (scratch / "file").unlink()
    (home / "cgroup.procs").write_text(str(os.getpid()))
    seconds = time.perf_counter() - start
    for i in range(loops):
        (parent / f"python-{i}").rmdir()
    return seconds


async def test_the_loop_is_not_slower_than_in_python(cgroups: Cgroups, tmp_path: Path) -> None:
    """The best of five interleaved runs each: the kernel's share is equal, and ours must not add to it."""
    native_s: list[float] = []
    python_s: list[float] = []
    home = await asyncio.to_thread(cgroups.memcg_dir_of, "self")
    async with native_loops(cgroups, group=GROUP, scratch=tmp_path) as loops:
        for _ in range(5):
            native_s.append((await loops.create(300, ignore)).loop_ns / 1e9)
            await loops.remove(300)
            python_s.append(loop_in_python(cgroups, loops.parent, home, tmp_path, 300))
    assert min(native_s) <= 1.1 * min(python_s), f"native {native_s}, Python {python_s}, seconds for 300 loops"


async def test_memory_is_read_from_the_node_and_from_the_parent(cgroups: Cgroups) -> None:
    async with native_loops(cgroups, group=GROUP) as loops:
        memory = await loops.memory()
        assert isinstance(memory, Memory)
        assert memory.available_bytes > memory.slab_bytes > 0
        assert memory.parent_kmem_bytes is not None
