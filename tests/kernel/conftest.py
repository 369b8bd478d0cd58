"""tracefs for the kernel tests: kickwatch does not need it, and without systemd it is not mounted."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture(scope="session")
def tracefs() -> Iterator[Path]:
    """Its mount point. If it was mounted for the tests, it is unmounted after them."""
    if (TRACEFS / "events").is_dir():
        yield TRACEFS
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    yield TRACEFS
    subprocess.run(["umount", TRACEFS], check=False)  # remains if another process uses it
