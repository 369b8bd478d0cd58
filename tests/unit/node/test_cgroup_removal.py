"""Our cgroups are removed, and on request the processes in them ended."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.node import cgroup_removal
from kickwatch.node.cgroup_removal import remove_tree


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


def test_remaining_processes_are_ended_without_pidfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.3 there is no pidfd_open(2): its error is simulated, the process is real."""

    def absent(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    with subprocess.Popen(["sleep", "60"]) as left:
        (tmp_path / "cgroup.procs").write_text(f"{left.pid}\n")
        cgroup_removal._kill_members(tmp_path)
        assert left.wait(10) == -signal.SIGKILL
