"""Two builds of the daemon's image from this tree."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Builds:
    """Two archives of one wheel, and what the builder said."""

    first: Path
    second: Path
    said: str


def build_twice(directory: Path) -> Builds:
    """As `make image` builds it, at the same time. Raises AssertionError with what the builder said."""
    make = ["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEEL_DIR={directory}"]
    subprocess.run(make, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    archives = [directory / "first.tar", directory / "second.tar"]
    build = [sys.executable, ROOT / "deploy/image/build.py", "--wheel", wheel, "--output"]
    running = [subprocess.Popen([*build, archive], stderr=subprocess.PIPE, text=True) for archive in archives]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return Builds(archives[0], archives[1], said[0])
