"""One experiment at a time: two kickwatch processes on a node would take each other's containers for a fault."""

import fcntl
import os
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
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                return False
        except OSError as error:
            if error.errno != ENOENT:  # it exists, but cannot be examined now
                return False
        taken = self._take("`systemd-tmpfiles --create`, then `systemctl restart kickwatch`")
        os.close(self._descriptor)
        self._descriptor = taken
        return True

    def _take(self, remedy: str) -> int:
        """Open and lock the file; returns its descriptor."""
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
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)
