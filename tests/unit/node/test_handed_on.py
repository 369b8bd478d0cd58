"""Controllers that a runtime switched on above our cgroups are switched off again, and no others."""

from collections.abc import Callable
from errno import EBUSY
from pathlib import Path
from typing import Any

import pytest

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.handed_on import Noted, handed_on, take_back
from kickwatch.node.roots import HostRoots


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


def test_what_a_runtime_added_is_taken_back(tmp_path: Path) -> None:
    before = handed_on(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    assert before == {tmp_path / "cgroup": Noted(frozenset({"memory", "pids"}), frozenset({"a.service"}))}
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


def test_a_cgroup_that_is_gone_is_not_tried_again(tmp_path: Path) -> None:
    assert take_back({tmp_path / "gone": Noted(frozenset())}) == {}
    assert not (tmp_path / "gone").exists()


def test_one_that_refuses_is_told_and_the_next_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Noted(frozenset())
    refusing, next_one = (made(tmp_path / name, "pids") for name in ("refusing", "next"))
    write = Path.write_text

    def refuse(path: Path, *given: Any, **named: Any) -> int:
        if path.parent == refusing:
            raise OSError(EBUSY, "Device or resource busy")
        return write(path, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refuse)
        assert take_back({refusing: nothing, next_one: nothing}) == {refusing: nothing}
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
def test_what_a_child_has_come_to_use_stays_and_no_more(tmp_path: Path, use: Callable[[Path], None], last: str) -> None:
    before = handed_on(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("cpu hugetlb memory pids\n")
    use(tmp_path / "cgroup/a.service")
    assert take_back(before) == {}
    assert control.read_text() == last  # of what is switched off, in the order of the alphabet


@pytest.mark.parametrize(("name", "left"), [("b.scope", "hugetlb memory pids\n"), ("kickwatch", "-hugetlb")])
def test_one_that_has_come_since_may_use_all(tmp_path: Path, name: str, left: str) -> None:
    before = handed_on(v2(tmp_path))
    control = tmp_path / "cgroup/cgroup.subtree_control"
    control.write_text("hugetlb memory pids\n")
    (tmp_path / "cgroup" / name).mkdir()
    assert take_back(before) == {}
    assert control.read_text() == left
    assert sorted(path.name for path in (tmp_path / "cgroup").iterdir() if path.is_dir()) == ["a.service", name]
