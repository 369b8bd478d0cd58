"""The node's lock: one kickwatch at a time, also after the file was removed."""

import fcntl
import os
from pathlib import Path

import pytest

from kickwatch.errors import BusyError, KickwatchError
from kickwatch.node.lock import NodeLock, holder_of


def test_a_lock_whose_file_was_removed_is_created_and_held_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with NodeLock(path) as lock:
        assert not lock.renew()
        path.unlink()
        assert lock.renew()
        assert not lock.renew()
        with pytest.raises(BusyError), NodeLock(path):
            pass
    with NodeLock(path):
        pass  # it was released


def test_a_lock_that_another_process_took_is_not_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with NodeLock(path) as lock:
        path.unlink()
        with NodeLock(path), pytest.raises(BusyError, match=str(path)):
            lock.renew()
        assert lock.renew()  # the other process has ended


def test_a_lock_that_cannot_be_created_again_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with NodeLock(directory / "lock") as lock:
        (directory / "lock").unlink()
        directory.rmdir()
        with pytest.raises(KickwatchError, match=r"run/lock cannot be opened \(No such file or directory\)") as caught:
            lock.renew()
        assert "systemctl restart kickwatch" in caught.value.remedy
        directory.mkdir()
        assert lock.renew()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_before_it_was_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaced: bool
) -> None:
    """A purge holds the lock while it removes the file: two then held a lock, each of another file."""
    path, removals = tmp_path / "lock", []

    def flock(descriptor: int, operation: int) -> None:
        if not removals:
            removals.append(path.unlink())
            if replaced:
                path.touch()
        fcntl_flock(descriptor, operation)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr("fcntl.flock", flock)
    with NodeLock(path) as lock:
        assert not lock.renew()
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(BusyError), NodeLock(path):
            pass


def listed(tmp_path: Path, *locks: str) -> Path:
    """A /proc whose list of locks is this; it has nothing else."""
    proc = tmp_path / "proc"
    proc.mkdir(exist_ok=True)
    (proc / "locks").write_text("".join(f"{number}: {lock}\n" for number, lock in enumerate(locks, 1)))
    return proc


def test_the_holder_is_found_without_taking_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None
    with NodeLock(path):
        assert holder_of(path) == os.getpid()
    assert holder_of(path) is None


def test_a_foreign_lock_with_the_same_inode_number_on_another_device_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    status = path.stat()
    major, minor, inode = os.major(status.st_dev), os.minor(status.st_dev), status.st_ino
    foreign = f"FLOCK  ADVISORY  WRITE 77 {major:02x}:{minor + 1:02x}:{inode} 0 EOF"
    waiting = f"-> FLOCK  ADVISORY  WRITE 78 {major:02x}:{minor:02x}:{inode} 0 EOF"
    record = f"POSIX  ADVISORY  WRITE 79 {major:02x}:{minor:02x}:{inode} 0 EOF"
    ours = f"FLOCK  ADVISORY  WRITE 80 {major:02x}:{minor:02x}:{inode} 0 EOF"
    assert (
        holder_of(path, listed(tmp_path, foreign, waiting, record, "FLOCK  ADVISORY  WRITE 81 <none>:0 0 EOF")) is None
    )
    assert holder_of(path, listed(tmp_path, foreign, ours)) == 80


def test_the_device_is_the_one_that_the_mount_shows(tmp_path: Path) -> None:
    """On btrfs stat(2) gives another one; every descriptor's mount is in its fdinfo."""
    path = tmp_path / "lock"
    path.touch()
    status = path.stat()
    another = os.minor(status.st_dev) + 1
    proc = listed(tmp_path, f"FLOCK  ADVISORY  WRITE 80 00:{another:02x}:{status.st_ino} 0 EOF")
    assert holder_of(path, proc) is None
    (proc / "self/fdinfo").mkdir(parents=True)
    for descriptor in range(1000):
        (proc / "self/fdinfo" / str(descriptor)).write_text("pos:\t0\nflags:\t012100000\nmnt_id:\t31\n")
    (proc / "self/mountinfo").write_text(
        f"30 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 30 0:{another} / /run rw - btrfs /dev/b rw\n"
    )
    assert holder_of(path, proc) == 80
