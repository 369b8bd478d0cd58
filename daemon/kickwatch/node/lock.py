"""One experiment at a time: two kickwatch processes on a node would take each other's containers for a fault."""

import fcntl
import os
from contextlib import suppress
from errno import ENOENT
from pathlib import Path
from types import TracebackType
from typing import Self

from kickwatch.errors import BusyError, KickwatchError
from kickwatch.node.roots import HOST

LOCK_PATH = HOST.run / "kickwatch.lock"


class NodeLock:
    """An advisory lock; the kernel releases it when its holder ends, whatever the cause."""

    def __init__(self, path: Path = LOCK_PATH) -> None:
        """`path` must be on a file system that does not survive a reboot."""
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock without waiting. Raises BusyError with the holder's process id."""
        self._descriptor = self._take("run as root")
        return self

    @property
    def path(self) -> Path:
        """The locked file."""
        return self._path

    def renew(self) -> bool:
        """Create and take the lock again if its file was removed, since other processes no longer see it; True if so.

        Raises BusyError if another kickwatch was faster, KickwatchError if the file cannot be created.
        """
        if self._is_file_of(self._descriptor):
            return False
        taken = self._take("`systemd-tmpfiles --create`, then `systemctl restart kickwatch`")
        os.close(self._descriptor)
        self._descriptor = taken
        return True

    def _is_file_of(self, descriptor: int) -> bool:
        """Whether the path still names the open file, which may have been removed or replaced."""
        try:
            named = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            return error.errno != ENOENT  # else it exists, but cannot be examined now
        try:
            here, held = os.fstat(named), os.fstat(descriptor)
            return (here.st_dev, here.st_ino) == (held.st_dev, held.st_ino)
        finally:
            os.close(named)

    def _take(self, remedy: str) -> int:
        """Open and lock the file; returns its descriptor.

        A purge removes the file while it holds the lock. Whoever opened it before that locks a file without a name,
        beside which the next one would lock another file.
        """
        while True:
            descriptor = self._lock(remedy)
            if self._is_file_of(descriptor):
                break
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _lock(self, remedy: str) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KickwatchError(f"{self._path} cannot be opened ({error.strerror})", remedy) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BusyError(
                f"another kickwatch is running experiments on this node (pid {holder}, lock {self._path})",
                "wait for it, or stop it (`systemctl stop kickwatch`)",
            ) from error
        return descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)


def holder_of(path: Path, proc: Path = HOST.proc) -> int | None:
    """The process that holds the lock `path`, without taking it; None if none does, or it cannot be found out.

    From proc_locks(5): `1: FLOCK  ADVISORY  WRITE 4574 00:19:1234 0 EOF`. Inode numbers repeat on other file systems,
    so the device must be the same.
    """
    try:
        inode, device = path.stat().st_ino, _device(path, proc)
        locks = (proc / "locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    held = [line.split() for line in locks.splitlines() if "FLOCK" in line and "->" not in line]
    return next((int(words[4]) for words in held if len(words) > 5 and _file(words[5]) == (*device, inode)), None)


def _file(text: str) -> tuple[int, int, int] | None:
    """`00:19:1234` is (device's major number, minor number, inode): hexadecimal, hexadecimal, decimal."""
    try:
        major, minor, inode = text.split(":")
        return int(major, 16), int(minor, 16), int(inode)
    except ValueError:
        return None


def _device(path: Path, proc: Path) -> tuple[int, int]:
    """Device numbers of a file's file system, as the kernel lists locks: those in mountinfo.

    stat(2) has others on btrfs, and is used only if the mount cannot be found.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        with suppress(OSError, ValueError):
            opened = (proc / "self/fdinfo" / str(descriptor)).read_text(encoding="ascii")
            mount = next(line.split()[1] for line in opened.splitlines() if line.startswith("mnt_id:"))
            mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
            for line in mounts.splitlines():
                number, _, device, _ = line.split(" ", 3)
                if number == mount:
                    major, _, minor = device.partition(":")
                    return int(major), int(minor)
    finally:
        os.close(descriptor)
    return os.major(status.st_dev), os.minor(status.st_dev)
