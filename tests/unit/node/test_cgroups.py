"""Cgroups are found in mountinfo, their files read, and our own created, all in temporary directories."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import (
    Cgroups,
    CgroupVersion,
    kmem_usage_bytes,
    nokmem,
    parse_mountinfo,
    parse_pid_cgroup,
    reclaim,
)
from kickwatch.node.roots import HostRoots

HYBRID = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
PROC = Path("/proc")


def located(mountinfo: str, root: Path = Path("/"), proc: Path = PROC) -> Cgroups:
    """The cgroups of a node with this mountinfo."""
    return Cgroups.locate(parse_mountinfo(mountinfo), HostRoots(root=root, proc=proc))


def a_process(tmp_path: Path, cgroup: str) -> Path:
    """A proc directory with one process, 7, in these cgroups."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(cgroup)
    return tmp_path


def test_a_hybrid_node_with_memory_on_v1_is_v1() -> None:
    cgroups = located(HYBRID)
    assert cgroups.version is CgroupVersion.V1
    assert cgroups.memory_root == Path("/sys/fs/cgroup/memory")
    names = ["cpu,cpuacct", "memory", "systemd", "unified"]
    assert cgroups.mounts == tuple(Path("/sys/fs/cgroup") / name for name in names)


def test_a_unified_node_is_v2() -> None:
    cgroups = located(UNIFIED)
    assert cgroups.version is CgroupVersion.V2
    assert cgroups.memory_root == Path("/sys/fs/cgroup")


def test_mount_points_are_below_the_given_root() -> None:
    assert located(UNIFIED, Path("/host")).memory_root == Path("/host/sys/fs/cgroup")


def test_the_mount_that_shows_the_whole_hierarchy_is_preferred() -> None:
    part = "90 23 0:32 /docker/abc /mnt/part rw - cgroup cgroup rw,memory\n"
    assert located(part + HYBRID).memory_root == Path("/sys/fs/cgroup/memory")


def test_an_escaped_mount_point() -> None:
    line = r"30 23 0:26 / /mnt/a\040b\134c rw - cgroup2 cgroup2 rw"
    assert located(line).memory_root == Path("/mnt/a b\\c")


def test_a_node_without_a_hierarchy_is_an_error() -> None:
    with pytest.raises(CgroupError, match="no cgroup hierarchy"):
        located("22 27 0:21 / /proc rw,relatime - proc proc rw\n")


def test_an_unreadable_mountinfo_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match=f"{tmp_path}/self/mountinfo cannot be read"):
        Cgroups.read(HostRoots(proc=tmp_path))


@given(st.text())
def test_the_parser_accepts_any_text(text: str) -> None:
    assert all(mount.point for mount in parse_mountinfo(text))


def test_pid_cgroup_lines() -> None:
    text = "11:cpu,cpuacct:/a\n4:memory:/b:c (deleted)\n1:name=systemd:/\n0::/x.slice\n"
    assert parse_pid_cgroup(text) == {
        "cpu": "/a",
        "cpuacct": "/a",
        "memory": "/b:c",
        "name=systemd": "/",
        "": "/x.slice",
    }


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [(HYBRID, "/sys/fs/cgroup/memory/docker/abc"), (UNIFIED, "/sys/fs/cgroup/system.slice/x.scope")],
)
def test_the_memcg_of_a_process(tmp_path: Path, mountinfo: str, expected: str) -> None:
    proc = a_process(tmp_path, "4:memory:/docker/abc\n0::/system.slice/x.scope\n")
    assert located(mountinfo, proc=proc).memcg_dir_of(7) == Path(expected)


def test_a_memcg_below_a_mount_of_part_of_the_hierarchy(tmp_path: Path) -> None:
    part = "90 23 0:32 /docker /mnt/part rw - cgroup cgroup rw,memory\n"
    inside = located(part, proc=a_process(tmp_path, "4:memory:/docker/abc\n"))
    assert inside.memcg_dir_of(7) == Path("/mnt/part/abc")


def in_a_namespace(tmp_path: Path, cgroup: str) -> Cgroups:
    """A node with the host's tree in `tmp_path`/host, seen from a cgroup namespace three levels down."""
    host = "90 23 0:32 /../../.. /host rw - cgroup2 cgroup2 rw\n"
    (tmp_path / "host/kubepods/pod/abc").mkdir(parents=True)
    return located(host, tmp_path, a_process(tmp_path, f"0::{cgroup}\n"))


def test_a_memcg_of_the_host_seen_from_a_cgroup_namespace(tmp_path: Path) -> None:
    inside = in_a_namespace(tmp_path, "/../../../kickwatch/abc")
    assert inside.memcg_dir_of(7) == tmp_path / "host/kickwatch/abc"


@pytest.mark.parametrize("cgroup", ["/", "/../neighbour", "/../../../../above"])
def test_a_path_that_does_not_lead_to_the_hosts_tree_is_searched_there(tmp_path: Path, cgroup: str) -> None:
    inside = in_a_namespace(tmp_path, cgroup)
    with pytest.raises(CgroupError, match="not visible"):
        inside.memcg_dir_of(7)
    (tmp_path / "host/kubepods/cgroup.procs").write_text("70\n17\n")
    (tmp_path / "host/kubepods/pod/abc/cgroup.procs").write_text("1\n7\n")
    assert inside.memcg_dir_of(7) == tmp_path / "host/kubepods/pod/abc"


def test_a_process_that_ends_while_its_memcg_is_searched_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that had ended before: nothing is wrong with the namespace."""
    inside = in_a_namespace(tmp_path, "/../../../../above")

    def ends(_: Cgroups, pid: int) -> None:
        (inside.proc / str(pid) / "cgroup").unlink()

    monkeypatch.setattr(Cgroups, "_listing", ends)
    with pytest.raises(CgroupError, match="may have ended") as caught:
        inside.memcg_dir_of(7)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("cgroup", ["/elsewhere/abc", "/../host", "/dockerized"])
def test_a_memcg_that_is_not_visible_is_an_error(tmp_path: Path, cgroup: str) -> None:
    part = "90 23 0:32 /docker /mnt/part rw - cgroup cgroup rw,memory\n"
    with pytest.raises(CgroupError, match="not visible"):
        located(part, proc=a_process(tmp_path, f"4:memory:{cgroup}\n")).memcg_dir_of(7)


def test_a_process_that_ended_and_one_without_a_memory_cgroup(tmp_path: Path) -> None:
    cgroups = located(HYBRID, proc=a_process(tmp_path, "0::/x\n"))
    with pytest.raises(CgroupError, match="names no memory cgroup"):
        cgroups.memcg_dir_of(7)
    with pytest.raises(CgroupError, match="may have ended"):
        cgroups.memcg_dir_of(8)


def test_kmem_usage_v1(tmp_path: Path) -> None:
    (tmp_path / "memory.kmem.usage_in_bytes").write_text("303104\n")
    (tmp_path / "memory.stat").write_text("cache 1\nrss 2\n")
    assert kmem_usage_bytes(tmp_path) == 303104


@pytest.mark.parametrize(
    ("stat", "expected"),
    [("anon 1\nkernel 4096\nslab 1024\n", 4096), ("anon 1\nslab 1024\n", 1024), ("anon 1\n", None), ("", None)],
)
def test_kmem_usage_v2(tmp_path: Path, stat: str, expected: int | None) -> None:
    (tmp_path / "memory.stat").write_text(stat)
    assert kmem_usage_bytes(tmp_path) == expected


def test_kmem_usage_of_a_removed_memcg(tmp_path: Path) -> None:
    assert kmem_usage_bytes(tmp_path / "gone") is None


def test_reclaim_writes_0_on_v1(tmp_path: Path) -> None:
    (tmp_path / "memory.force_empty").write_text("")
    assert reclaim(tmp_path) == ""
    assert (tmp_path / "memory.force_empty").read_text() == "0"


def test_reclaim_requests_everything_on_v2(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("81920\n")
    (tmp_path / "memory.reclaim").write_text("")
    assert reclaim(tmp_path) == ""
    assert (tmp_path / "memory.reclaim").read_text() == "81920"
    (tmp_path / "memory.current").write_text("0\n")
    (tmp_path / "memory.reclaim").unlink()
    assert reclaim(tmp_path) == ""


def test_a_failed_reclaim_returns_its_reason(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("81920\n")
    (tmp_path / "memory.reclaim").mkdir()  # cannot be written
    assert reclaim(tmp_path).startswith(f"{tmp_path}/memory.reclaim: ")


@pytest.mark.parametrize(
    ("command_line", "off"),
    [
        ("quiet cgroup.memory=nokmem", True),
        ("cgroup.memory=nosocket,nokmem quiet", True),
        ('"cgroup.memory=nokmem"', True),
        ("cgroup.memory=nosocket", False),
        ("cgroup.memory=nokmemory", False),
        ("console=ttyS0 -- cgroup.memory=nokmem", False),
        ("xcgroup.memory=nokmem", False),
        ("", False),
    ],
)
def test_nokmem(command_line: str, off: bool) -> None:
    assert nokmem(command_line) is off


def a_v2_tree(tmp_path: Path, controllers: str, enabled: str = "") -> Cgroups:
    """A mount of cgroup v2 whose root has these controllers; with a cgroup `kickwatch-x` that has the same."""
    cgroups = located(UNIFIED, tmp_path)
    for directory in (cgroups.memory_root, cgroups.memory_root / "kickwatch-x"):
        directory.mkdir(parents=True)
        (directory / "cgroup.controllers").write_text(controllers)
        (directory / "cgroup.subtree_control").write_text(enabled)
    return cgroups


def test_memory_is_enabled_for_our_cgroup_on_v2(tmp_path: Path) -> None:
    cgroups = a_v2_tree(tmp_path, "cpu memory\n")
    own = cgroups.ensure_own("kickwatch-x")
    for directory in (cgroups.memory_root, own):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory"


def test_memory_that_is_already_enabled_is_not_written_again(tmp_path: Path) -> None:
    cgroups = a_v2_tree(tmp_path, "cpu memory\n", "memory pids\n")
    cgroups.ensure_own("kickwatch-x")
    assert (cgroups.memory_root / "cgroup.subtree_control").read_text() == "memory pids\n"


def test_a_v2_hierarchy_without_memory_controller_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="no memory controller"):
        a_v2_tree(tmp_path, "cpu\n").ensure_own("kickwatch-x")


def test_other_processes_in_the_cgroup_are_named_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's error is simulated: a real one needs cgroup v2, which the node of the tests may not have."""

    def busy(path: Path, *_: object, **__: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    cgroups = a_v2_tree(tmp_path, "cpu memory\n")
    monkeypatch.setattr(Path, "write_text", busy)
    with pytest.raises(CgroupError, match=r"contains other processes: start kickwatch in its own unit"):
        cgroups.ensure_own("kickwatch-x")


@pytest.mark.parametrize("name", ["docker", "../kickwatch", "kickwatch/../docker"])
def test_our_cgroups_must_have_our_prefix(tmp_path: Path, name: str) -> None:
    with pytest.raises(CgroupError, match="not one of ours"):
        located(UNIFIED, tmp_path).ensure_own(name)
