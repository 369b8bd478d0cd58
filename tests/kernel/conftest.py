"""What the kernel's tests share: tracefs, which kickwatch does without and a machine without systemd does not mount."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture(scope="session")
def tracefs() -> Iterator[Path]:
    """Where it is mounted. One that was mounted for the tests is unmounted after them."""
    if (TRACEFS / "events").is_dir():
        yield TRACEFS
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    yield TRACEFS
    subprocess.run(["umount", TRACEFS], check=False)  # stays where somebody else has come to use it
