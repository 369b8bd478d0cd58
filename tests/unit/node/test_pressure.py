"""The node's pressure, read from this machine, from temporary directories, and from arbitrary file contents."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.pressure import (
    MOST_DIRECTORIES,
    WALK_PERIOD_S,
    DyingMemcgs,
    Pressure,
    disk_free_pct,
    live_directories,
    parse_available_memory,
    parse_dying,
    parse_load,
    parse_memory_cgroups,
    parse_psi,
    read_pressure,
)
from kickwatch.node.roots import HostRoots

PSI = """\
some avg10=54.28 avg60=38.81 avg300=30.64 total=1372451541
full avg10=1.50 avg60=0.00 avg300=0.00 total=0
"""
MEMINFO = """\
MemTotal:        1000000 kB
MemFree:          100000 kB
MemAvailable:     250000 kB
Buffers:           13884 kB
"""
LOADAVG = "6.29 4.94 2.92 4/156 20941\n"
CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t3\t1\nmemory\t4\t51\t1\nhugetlb\t0\t3\t1\n"
CGROUP_STAT = "nr_descendants 2\nnr_subsys_memory 3\nnr_dying_descendants 17\nnr_dying_subsys_memory 16\n"
FIXTURES = {
    "proc/pressure/cpu": PSI,
    "proc/pressure/memory": PSI.replace("54.28", "0.00"),
    "proc/pressure/io": PSI.replace("54.28", "100.00"),
    "proc/meminfo": MEMINFO,
    "proc/loadavg": LOADAVG,
    "proc/cgroups": CGROUPS,
    "sys/devices/system/cpu/online": "0,2-3\n",
    "cgroup/cgroup.stat": CGROUP_STAT,
}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node of three CPUs with a memory hierarchy of 1 + 7 directories."""
    for name, text in FIXTURES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("docker/a", "docker/b", "docker/c", "system.slice/x.service/y"):
        (tmp_path / "cgroup" / name).mkdir(parents=True)
    return tmp_path


def hierarchy(node: Path, version: CgroupVersion, mount_root: str = "/") -> Cgroups:
    return Cgroups(version, node / "cgroup", mount_root, (), node / "proc")


def read(node: Path, version: CgroupVersion = CgroupVersion.V1) -> Pressure:
    return read_pressure(node, 12, DyingMemcgs(hierarchy(node, version)), HostRoots.below(node))


def test_all_figures_are_read(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_free = os.statvfs_result((4096, 4096, 1000, 500, 500, 0, 0, 0, 0, 255, 7))
    monkeypatch.setattr(os, "statvfs", {node: half_free}.__getitem__)  # the machine's own disk is in use meanwhile
    pressure = read(node)
    assert (pressure.cpu_some_pct, pressure.memory_some_pct, pressure.io_some_pct) == (54.28, 0.0, 100.0)
    assert pressure.load_per_cpu == pytest.approx(6.29 / 3)
    assert pressure.available_memory_pct == 25.0
    assert pressure.engine_disk_free_pct == 50.0
    assert pressure.containers == 12
    assert pressure.dying_memcgs == 51 - 8
    assert read(node, CgroupVersion.V2).dying_memcgs == 17


def test_missing_files_are_none(tmp_path: Path) -> None:
    dying = DyingMemcgs(hierarchy(tmp_path, CgroupVersion.V1))
    nothing = read_pressure(None, None, dying, HostRoots.below(tmp_path))
    assert nothing == Pressure() == read_pressure(tmp_path / "none", None, None, HostRoots(proc=tmp_path, sys=tmp_path))


def test_a_file_that_cannot_be_read_is_none(node: Path) -> None:
    (node / "proc" / "pressure" / "io").unlink()
    (node / "proc" / "pressure" / "io").mkdir()  # as with EOPNOTSUPP: the file exists, and reading it fails
    assert read(node).io_some_pct is None
    assert read(node).cpu_some_pct == 54.28


def test_a_malformed_list_of_cpus_costs_only_the_load(node: Path) -> None:
    (node / "sys/devices/system/cpu/online").write_text("0-\ufffd\n")
    assert read(node).load_per_cpu is None
    assert read(node).available_memory_pct == 25.0


@pytest.mark.parametrize(
    ("parse", "text", "whole"),
    [
        (parse_psi, PSI, 54.28),
        (parse_load, LOADAVG, 6.29),
        (parse_available_memory, MEMINFO, 25.0),
        (parse_dying, CGROUP_STAT, 17),
        (parse_memory_cgroups, CGROUPS, 51),
    ],
)
def test_a_file_that_is_cut_off_gives_the_same_figure_or_none(parse, text: str, whole: float) -> None:  # type: ignore[no-untyped-def]
    found = [parse(text[:length]) for length in range(len(text) + 1)]
    assert set(found) == {None, whole}
    assert found == sorted(found, key=lambda value: value is not None)  # a longer text never loses the figure


@pytest.mark.parametrize(
    "text",
    [
        "some avg10=100.01 avg60=0.00\n",
        "some avg10=nan avg60=0.00\n",
        "full avg10=3.00 avg60=0.00\n",
        "some avg10=-1.00 avg60=0.00\n",
        "some avg10=٣.00 avg60=0.00\n",
    ],
)
def test_malformed_pressure_is_none(text: str) -> None:
    assert parse_psi(text) is None


def test_memory_without_a_total_is_none() -> None:
    assert parse_available_memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n") is None
    assert parse_available_memory("MemTotal: 5 kB\nMemFree: 5 kB\n") is None  # before 3.14


@given(st.text() | st.text(alphabet="some avg10=.0123456789\n"), st.binary())
def test_the_parsers_accept_any_text(text: str, raw: bytes) -> None:
    for one in (text, raw.decode("ascii", errors="replace"), f"some avg10={text} avg60", f"memory\t4\t{text}\t1\n"):
        for parse in (parse_psi, parse_load, parse_available_memory, parse_dying, parse_memory_cgroups):
            assert parse(one) is None or parse(one) >= 0  # type: ignore[operator]


@given(st.binary(max_size=200))
def test_any_file_contents_are_accepted(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    node = tmp_path_factory.mktemp("node")
    for name in FIXTURES:
        (node / name).parent.mkdir(parents=True, exist_ok=True)
        (node / name).write_bytes(raw)
    for version in CgroupVersion:
        assert read(node, version).containers == 12
    shutil.rmtree(node)


def test_this_machine() -> None:
    cgroups = Cgroups.read()
    pressure = read_pressure(Path("/"), 3, DyingMemcgs(cgroups))
    for share in (pressure.cpu_some_pct, pressure.memory_some_pct, pressure.io_some_pct):
        assert share is None or 0.0 <= share <= 100.0
    try:
        shown = Path("/proc/pressure/cpu").read_text(encoding="ascii").startswith("some")
    except OSError:
        shown = False
    assert (pressure.cpu_some_pct is not None) == shown
    assert pressure.load_per_cpu is not None
    assert pressure.load_per_cpu >= 0.0
    assert pressure.available_memory_pct is not None
    assert 0.0 < pressure.available_memory_pct < 100.0
    assert pressure.engine_disk_free_pct is not None
    assert 0.0 <= pressure.engine_disk_free_pct <= 100.0
    if cgroups.memory_mount_root == "/":
        assert pressure.dying_memcgs is not None
        assert pressure.dying_memcgs >= 0


def test_the_walk_counts_the_directories_of_this_machine() -> None:
    root = Cgroups.read().memory_root
    for _ in range(100):  # other cgroups come and go at the same time
        before, ours, after = sum(1 for _ in os.walk(root)), live_directories(root), sum(1 for _ in os.walk(root))
        if before == after:
            break
    assert before == ours == after


def test_the_walk_reaches_the_deepest_directory(tmp_path: Path) -> None:
    deepest = tmp_path / "/".join("abcdefgh")
    deepest.mkdir(parents=True)
    (deepest / "file").write_text("")
    (tmp_path / "link").symlink_to(deepest)
    assert live_directories(tmp_path) == 9
    assert live_directories(tmp_path / "none") is None
    assert live_directories(deepest / "file") is None


def test_the_walk_is_bounded(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    assert live_directories(tmp_path, most=31) == 31
    assert live_directories(tmp_path, most=30) is None
    assert MOST_DIRECTORIES >= 10_000


def test_a_hierarchy_is_walked_at_most_once_a_minute(node: Path) -> None:
    now_s = 1000.0
    dying = DyingMemcgs(hierarchy(node, CgroupVersion.V1), clock=lambda: now_s)
    assert dying.count() == 43
    (node / "cgroup/docker/a").rmdir()
    now_s += WALK_PERIOD_S - 0.1
    assert dying.count() == 43
    now_s += 0.2
    assert dying.count() == 44


def test_on_v2_the_count_is_read_every_time(node: Path) -> None:
    dying = DyingMemcgs(hierarchy(node, CgroupVersion.V2), clock=lambda: 0.0)
    assert dying.count() == 17
    (node / "cgroup/cgroup.stat").write_text(CGROUP_STAT.replace("17", "18"))
    assert dying.count() == 18


def test_cgroups_created_during_the_count_are_not_dying(node: Path) -> None:
    (node / "proc/cgroups").write_text(CGROUPS.replace("51", "5"))
    assert read(node).dying_memcgs == 0


def test_invisible_cgroups_are_not_counted_as_dying(node: Path) -> None:
    assert DyingMemcgs(hierarchy(node, CgroupVersion.V1, "/docker/abc")).count() is None


def test_a_disk_without_free_inodes_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def statvfs(files: int, free_files: int) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1000, 600, 400, files, free_files, free_files, 0, 255, 7))

    monkeypatch.setattr(os, "statvfs", lambda _: statvfs(100, 3))
    assert disk_free_pct(Path("/")) == 3.0
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs(0, 0))  # btrfs
    assert disk_free_pct(Path("/")) == 50.0  # 400 usable, 400 used, 200 reserved for root
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((0,) * 11))
    assert disk_free_pct(Path("/")) is None
