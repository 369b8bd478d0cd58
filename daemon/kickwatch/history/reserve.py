"""A file that reserves disk space for the history: created while there is plenty, deleted when the disk is full."""

import os
from contextlib import suppress
from pathlib import Path

RESERVE_FILE = "history.reserve"
RESERVE_BYTES = 256 * 1024


def hold(directory: Path) -> None:
    """Reserve space for the trials that come while the disk is full. Does nothing if space is short already."""
    path = directory / RESERVE_FILE
    with suppress(OSError):
        if path.exists():
            return
        system = os.statvfs(directory)
        size = min(RESERVE_BYTES, system.f_blocks * system.f_frsize // 4)
        if system.f_bavail * system.f_frsize > 2 * size:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def is_held(directory: Path) -> bool:
    """True if the space is reserved now; False also if that cannot be checked."""
    with suppress(OSError):
        return (directory / RESERVE_FILE).exists()
    return False


def release(directory: Path) -> bool:
    """Free the reserved space. False if there was none."""
    try:
        (directory / RESERVE_FILE).unlink()
    except OSError:
        return False
    return True
