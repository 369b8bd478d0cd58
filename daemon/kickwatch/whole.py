"""Files that are always whole, whoever reads them and whenever the process is killed."""

from pathlib import Path


def write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace the file or leave it as it was: written beside it, then renamed over. Raises OSError.

    Not synced to the disk. For directories that are ours alone: the name beside it is a fixed one.
    """
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(content)
    if mode is not None:
        aside.chmod(mode)
    aside.replace(path)
