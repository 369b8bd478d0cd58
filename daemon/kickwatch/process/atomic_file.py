"""Files that are always whole, whoever reads them and whenever the process is killed."""

import os
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path

_SECTOR_BYTES = 512  # of st_blocks, whatever the file system (stat(2))


def write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace the file or leave it as it was: written beside it, then renamed over. Raises OSError.

    Not synced to the disk. For directories that are ours alone: the name beside it is a fixed one.
    """
    aside = path.with_name(f"{path.name}.new")
    try:
        aside.write_bytes(content)
        if mode is not None:
            aside.chmod(mode)
        aside.replace(path)
    except OSError:
        with suppress(OSError):  # half a file takes room where there is none
            aside.unlink()
        raise


def write_over(path: Path, content: bytes) -> None:
    """Replace what is in a file that exists, in the room that it takes on the disk, which may be full. Raises OSError.

    In one call, filled up with spaces to its old length; a crash of the machine may leave a mixture.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        padded = content.ljust(found.st_size)
        if len(padded) > found.st_blocks * _SECTOR_BYTES or os.pwrite(descriptor, padded, 0) != len(padded):
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
    finally:
        os.close(descriptor)
