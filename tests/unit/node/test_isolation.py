"""Which CPUs are isolated: sysfs, cpuset partitions of older and newer kernels, and the configured list."""

from pathlib import Path

import pytest

from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.roots import HostRoots

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
HYBRID = """\
35 31 0:32 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.fixture
def host(tmp_path: Path) -> HostRoots:
    """A node with 16 CPUs and cgroup v2; none is isolated."""
    roots = HostRoots.below(tmp_path)
    write(tmp_path, "sys/devices/system/cpu/possible", "0-15\n")
    write(tmp_path, "sys/devices/system/cpu/isolated", "\n")
    write(tmp_path, "proc/self/mountinfo", UNIFIED)
    write(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n")
    return roots


def write(tree: Path, name: str, text: str) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(host: HostRoots, name: str, kind: str, cpus: str = "", exclusive: str | None = None) -> None:
    """A cgroup with the files of the cpuset controller."""
    write(host.root, f"sys/fs/cgroup/{name}/cpuset.cpus.partition", f"{kind}\n")
    write(host.root, f"sys/fs/cgroup/{name}/cpuset.cpus.effective", f"{cpus}\n")
    if exclusive is not None:
        write(host.root, f"sys/fs/cgroup/{name}/cpuset.cpus.exclusive", f"{exclusive}\n")


def test_none_is_isolated_on_an_ordinary_node(host: HostRoots) -> None:
    group(host, "system.slice", "member", "0-15")
    assert isolated_cpus(host) == ()


def test_nothing_that_can_be_read_is_nothing_isolated(tmp_path: Path) -> None:
    assert isolated_cpus(HostRoots.below(tmp_path)) == ()


def test_the_kernels_command_line(host: HostRoots) -> None:
    write(host.root, "sys/devices/system/cpu/isolated", "2,4-5\n")
    write(host.root, "sys/devices/system/cpu/nohz_full", "5-7\n")
    assert isolated_cpus(host) == (2, 4, 5, 6, 7)


@pytest.mark.parametrize("text", ["(null)\n", "\n", ""])
def test_a_kernel_without_tickless_cpus(host: HostRoots, text: str) -> None:
    write(host.root, "sys/devices/system/cpu/nohz_full", text)
    assert isolated_cpus(host) == ()


def test_the_configured_list_is_added(host: HostRoots) -> None:
    write(host.root, "sys/devices/system/cpu/isolated", "2\n")
    assert isolated_cpus(host, [3, 2]) == (2, 3)


def test_cpus_that_the_machine_cannot_have_are_left_out(host: HostRoots) -> None:
    assert isolated_cpus(host, [15, 16, 999]) == (15,)


def test_partitions_of_older_kernels_are_searched(host: HostRoots) -> None:
    group(host, "plain", "member", "0-3")
    group(host, "shielded", "isolated", "4-5")
    group(host, "invalid", "isolated invalid (Cpu list in cpuset.cpus not exclusive)", "6")
    group(host, "domain", "root", "8-9")
    group(host, "domain/inner", "isolated", "10")
    group(host, "plain/not-a-partition", "isolated", "12")  # its parent has no CPUs to give: cannot be
    assert isolated_cpus(host) == (4, 5, 10)


def test_remote_partitions_are_found_by_their_parents_exclusive_cpus(host: HostRoots) -> None:
    group(host, "a.slice", "member", "0-3", exclusive="4-5")
    group(host, "a.slice/deep", "isolated", "4-5", exclusive="4-5")
    group(host, "b.slice", "member", "0-3", exclusive="")
    assert isolated_cpus(host) == (4, 5)


def test_the_file_for_all_partitions_needs_no_search(host: HostRoots) -> None:
    write(host.root, "sys/fs/cgroup/cpuset.cpus.isolated", "6-7\n")
    group(host, "shielded", "isolated", "4-5")
    assert isolated_cpus(host) == (6, 7)


def test_cgroup_v1_has_no_partitions(host: HostRoots) -> None:
    write(host.root, "proc/self/mountinfo", HYBRID)
    write(host.root, "sys/fs/cgroup/unified/cgroup.controllers", "\n")
    write(host.root, "sys/fs/cgroup/unified/x/cpuset.cpus.partition", "isolated\n")
    write(host.root, "sys/fs/cgroup/unified/x/cpuset.cpus.effective", "4\n")
    assert isolated_cpus(host) == ()
