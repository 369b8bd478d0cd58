"""Our cgroups are removed, and on request the processes in them ended."""

import errno
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.node import cgroup_removal
from kickwatch.node.cgroup_removal import remove_tree

rmdir = Path.rmdir


def test_a_tree_is_removed_with_all_below_it(tmp_path: Path) -> None:
    top = tmp_path / "kickwatch-a"
    (top / "b" / "c").mkdir(parents=True)
    (top / "d").mkdir()
    assert remove_tree(top) == ()
    assert list(tmp_path.iterdir()) == []
    assert remove_tree(top) == ()  # an absent tree is not an error


def test_cgroups_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    with pytest.raises(CgroupError, match="not one of ours"):
        remove_tree(tmp_path / "docker")
    assert (tmp_path / "docker").is_dir()


@pytest.mark.parametrize("stays", ["0" * 64, "e" * 64])
def test_a_cgroup_that_stays_takes_no_time_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: str
) -> None:
    """Another's container that sorts first, or one of ours with a process that SIGKILL does not end.

    A mock of the kernel: `f...` has a process until 50 ms after it is killed.
    """
    top, ends = tmp_path / "kickwatch", "f" * 64
    killed_s: dict[str, float] = {}

    def kill(cgroup: Path) -> None:
        killed_s.setdefault(cgroup.name, time.monotonic())

    def remove(cgroup: Path) -> None:
        in_use = cgroup.name == ends and time.monotonic() < killed_s.get(ends, math.inf) + 0.05
        if in_use or cgroup.name == stays or any(cgroup.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rmdir(cgroup)

    monkeypatch.setattr(cgroup_removal, "_kill_members", kill)
    monkeypatch.setattr(Path, "rmdir", remove)
    for name in (stays, ends):
        (top / name).mkdir(parents=True)
    assert remove_tree(top, kill=lambda path: path.name in {"e" * 64, ends}) == (top / stays, top)
    assert list(top.iterdir()) == [top / stays]


def test_remaining_processes_are_ended_without_pidfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.3 there is no pidfd_open(2): its error is simulated, the process is real."""

    def absent(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    with subprocess.Popen(["sleep", "60"]) as left:
        (tmp_path / "cgroup.procs").write_text(f"{left.pid}\n")
        cgroup_removal._kill_members(tmp_path)
        assert left.wait(10) == -signal.SIGKILL
