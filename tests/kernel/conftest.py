"""For the kernel tests: armed observers, and tracefs, which kickwatch does not need and only systemd mounts."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kickwatch.observe.observatory import Observatory
from needs import ipi_rung

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture
async def observatory() -> AsyncIterator[Observatory]:
    """Armed on the rung that is asked for, and disarmed after the test."""
    armed = await Observatory.open()
    assert armed.observers.ipis == ipi_rung(), armed.losses
    yield armed
    armed.close()


@pytest.fixture(scope="session")
def tracefs() -> Iterator[Path]:
    """Its mount point. If it was mounted for the tests, it is unmounted after them."""
    if (TRACEFS / "events").is_dir():
        yield TRACEFS
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    yield TRACEFS
    subprocess.run(["umount", TRACEFS], check=False)  # remains if another process uses it
