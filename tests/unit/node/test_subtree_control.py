"""Controllers that a runtime enabled above our cgroups are disabled again, and no others."""

from collections.abc import Callable
from errno import EBUSY
from pathlib import Path
from typing import Any

import pytest

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.roots import HostRoots
from kickwatch.node.subtree_control import SubtreeState, disable_added, subtree_states


def v2(root: Path) -> Cgroups:
    """A node whose only hierarchy is at `root`, with this process in /a.service."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"1 0 0:1 / {root}/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "proc/self/cgroup").write_text("0::/a.service\n")
    (root / "cgroup/a.service").mkdir(parents=True)
    (root / "cgroup/cgroup.controllers").write_text("cpu memory hugetlb pids\n")
    (root / "cgroup/cgroup.subtree_control").write_text("memory pids\n")
    return Cgroups.read(HostRoots(proc=root / "proc"))


def made(cgroup: Path, controllers: str) -> Path:
    cgroup.mkdir()
    (cgroup / "cgroup.subtree_control").write_text(controllers)
    return cgroup


def test_controllers_that_a_runtime_enabled_are_disabled(tmp_path: Path) -> None:
    before = subtree_states(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    assert before == {tmp_path / "cgroup": SubtreeState(frozenset({"memory", "pids"}), frozenset({"a.service"}))}
    control.write_text("hugetlb memory pids\n")
    disable_added(before)
    assert control.read_text() == "-hugetlb"


def test_memory_and_earlier_controllers_stay_enabled(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("pids\n")
    before = subtree_states(cgroups)
    control.write_text("memory pids\n")
    disable_added(before)
    assert control.read_text() == "memory pids\n"


def test_a_removed_cgroup_is_not_tried_again(tmp_path: Path) -> None:
    assert disable_added({tmp_path / "gone": SubtreeState(frozenset())}) == {}
    assert not (tmp_path / "gone").exists()


def test_a_cgroup_that_refuses_is_returned_and_the_next_one_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = SubtreeState(frozenset())
    refusing, next_one = (made(tmp_path / name, "pids") for name in ("refusing", "next"))
    write = Path.write_text

    def refuse(path: Path, *given: Any, **named: Any) -> int:
        if path.parent == refusing:
            raise OSError(EBUSY, "Device or resource busy")
        return write(path, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refuse)
        assert disable_added({refusing: nothing, next_one: nothing}) == {refusing: nothing}
    assert (next_one / "cgroup.subtree_control").read_text() == "-pids"


def limited(child: Path) -> None:
    (child / "hugetlb.2MB.max").write_text("2097152")


def handing_on(child: Path) -> None:
    (child / "cgroup.subtree_control").write_text("hugetlb")


def pressed(child: Path) -> None:
    (child / "hugetlb.pressure").write_text("avg10=3.00")


def limited_by_another(child: Path) -> None:
    (child / "pids.max").write_text("23")


@pytest.mark.parametrize(
    ("use", "last"),
    [(limited, "-cpu"), (handing_on, "-cpu"), (pressed, "-hugetlb"), (limited_by_another, "-hugetlb")],
)
def test_a_controller_that_a_child_uses_by_now_stays(tmp_path: Path, use: Callable[[Path], None], last: str) -> None:
    before = subtree_states(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("cpu hugetlb memory pids\n")
    use(tmp_path / "cgroup/a.service")
    assert disable_added(before) == {}
    assert control.read_text() == last  # controllers are disabled in alphabetical order


@pytest.mark.parametrize(("name", "left"), [("b.scope", "hugetlb memory pids\n"), ("kickwatch", "-hugetlb")])
def test_a_new_child_may_use_all_controllers(tmp_path: Path, name: str, left: str) -> None:
    before = subtree_states(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("hugetlb memory pids\n")
    (tmp_path / "cgroup" / name).mkdir()
    assert disable_added(before) == {}
    assert control.read_text() == left
    assert sorted(path.name for path in (tmp_path / "cgroup").iterdir() if path.is_dir()) == ["a.service", name]
