"""Some room on the disk of the history, held while there is enough of it and given up when others have filled it."""

import os
from contextlib import suppress
from pathlib import Path

RESERVE_FILE = "history.reserve"
RESERVE_BYTES = 256 * 1024


def hold(directory: Path) -> None:
    """Hold some room, so that trials can be appended for a while on a disk that others have filled. No room, none."""
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
    """Whether it is held now; False also where that cannot be seen."""
    with suppress(OSError):
        return (directory / RESERVE_FILE).exists()
    return False


def release(directory: Path) -> bool:
    """Whether there was room held, which is free now."""
    try:
        (directory / RESERVE_FILE).unlink()
    except OSError:
        return False
    return True
