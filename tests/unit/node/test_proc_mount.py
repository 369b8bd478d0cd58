"""The mount options of proc, as different kernels print them."""

import os
import subprocess
from pathlib import Path

import pytest

from kickwatch.node.proc_mount import ProcMount, hidden, parse_proc_mount, read_proc_mount

HEAD = "24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw"
NO_PID = 2**22 + 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ProcMount()),
        (",hidepid=0", ProcMount()),
        (",hidepid=off", ProcMount()),
        (",hidepid=2", ProcMount("2")),
        (",hidepid=1,gid=26", ProcMount("1", "26")),
        (",gid=26,hidepid=invisible", ProcMount("invisible", "26")),
        (",hidepid=ptraceable", ProcMount("ptraceable")),
        (",subset=pid", ProcMount(subset="pid")),
    ],
)
def test_the_options_of_a_mount(options: str, expected: ProcMount) -> None:
    assert parse_proc_mount(f"{HEAD}{options}\n", Path("/proc")) == expected


def test_the_newest_mount_counts_and_others_do_not() -> None:
    binfmt = "35 24 0:31 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw,hidepid=1"
    elsewhere = "36 30 0:22 / /srv/proc rw - proc proc rw,hidepid=2"
    newer = HEAD.replace("24 30", "90 24") + ",hidepid=2"
    assert parse_proc_mount("\n".join((HEAD, binfmt, elsewhere, "")), Path("/proc")) == ProcMount()
    assert parse_proc_mount("\n".join((HEAD, newer)), Path("/proc")) == ProcMount("2")


def test_ptraceable_leaves_out_the_group() -> None:
    assert [ProcMount(word).group_helps for word in ("", "1", "2", "invisible", "4", "ptraceable")] == [
        *(False, True, True, True, False, False)
    ]


def test_a_process_is_hidden_only_if_it_exists_and_proc_hides(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(f"{HEAD},hidepid=2\n".replace(" /proc ", f" {tmp_path} "))
    mount = read_proc_mount(tmp_path)
    assert mount.hides
    with subprocess.Popen(["sleep", "60"]) as child:
        assert hidden(tmp_path, child.pid, mount)
        assert not hidden(tmp_path, child.pid, ProcMount())
        (tmp_path / str(child.pid)).mkdir()
        (tmp_path / str(child.pid) / "comm").write_text("sleep\n")
        assert not hidden(tmp_path, child.pid, mount)
        child.kill()
    assert not hidden(tmp_path, NO_PID, mount)
    assert not hidden(tmp_path, 0, mount)
    assert not hidden(tmp_path, os.getpid(), ProcMount())
    assert read_proc_mount(tmp_path / "none") == ProcMount()
