"""Files that a reader always finds complete, whenever the process is killed."""

import os
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from tempfile import NamedTemporaryFile

_READABLE = 0o644
_SECTOR_BYTES = 512  # the unit of st_blocks on every file system (stat(2))


def write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write `<name>.new`, then rename it over `path`: on an error `path` stays as it was. Raises OSError.

    Not synced to the disk. Only for directories that nobody else writes to, since the temporary name is fixed.
    """
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.write_bytes(content)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # half a file would take space on a full disk
            temporary.unlink()
        raise


def write_over(path: Path, content: bytes) -> None:
    """Overwrite an existing file within the disk space it has, for a disk that may be full. Raises OSError.

    One pwrite(2), padded with spaces to the old length. After a crash of the machine old and new may be mixed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        padded = content.ljust(before.st_size)
        if len(padded) > before.st_blocks * _SECTOR_BYTES or os.pwrite(descriptor, padded, 0) != len(padded):
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """As `write_whole`, under a temporary name of its own, for a directory that others write to. Raises OSError."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            temporary.chmod(_READABLE)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
