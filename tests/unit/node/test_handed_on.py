"""Controllers that a runtime switched on above our cgroups are switched off again, and no others."""

from pathlib import Path

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.handed_on import handed_on, take_back


def v2(root: Path) -> Cgroups:
    """A node whose only hierarchy is at `root`, with this process in /a.service."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"1 0 0:1 / {root}/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "proc/self/cgroup").write_text("0::/a.service\n")
    (root / "cgroup/a.service").mkdir(parents=True)
    (root / "cgroup/cgroup.controllers").write_text("cpu memory hugetlb pids\n")
    (root / "cgroup/cgroup.subtree_control").write_text("memory pids\n")
    return Cgroups.read(root / "proc")


def test_what_a_runtime_added_is_taken_back(tmp_path: Path) -> None:
    before = handed_on(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    assert before == {tmp_path / "cgroup": frozenset({"memory", "pids"})}
    control.write_text("hugetlb memory pids\n")
    take_back(before)
    assert control.read_text() == "-hugetlb"


def test_memory_stays_and_so_does_what_was_there(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("pids\n")
    before = handed_on(cgroups)
    control.write_text("memory pids\n")
    take_back(before)
    assert control.read_text() == "memory pids\n"


def test_a_cgroup_that_is_gone_or_refuses_is_left(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    take_back({gone: frozenset()})
    refusing = tmp_path / "refusing"
    (refusing / "cgroup.subtree_control").mkdir(parents=True)
    take_back({refusing: frozenset()})
    assert not gone.exists()
