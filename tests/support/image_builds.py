"""Builds of the daemon's image from this tree, as `make image` makes them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build_wheel(directory: Path) -> Path:
    """This tree's wheel."""
    make = ["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEEL_DIR={directory}"]
    subprocess.run(make, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def build_images(wheel: Path, *archives: Path) -> None:
    """One build for each archive, all at the same time. Raises AssertionError with their output."""
    build = [sys.executable, ROOT / "deploy/image/build.py", "--wheel", wheel, "--output"]
    running = [subprocess.Popen([*build, archive], stderr=subprocess.PIPE, text=True) for archive in archives]
    output = [process.communicate()[1] for process in running]
    assert not any(process.returncode for process in running), output
