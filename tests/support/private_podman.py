"""A separate rootful podman for tests that serves Docker's API, with store and socket in one directory."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from private_engine import answers, clear

ROOT = Path("/run/kickwatch-test-podman")  # short, because a socket's path may have at most 108 bytes
# Podman's default limits of descriptors and processes are higher than a machine without CAP_SYS_RESOURCE may set. crun
# up to 1.8 refuses a node that has both v1 hierarchies and a v2 one.
SETTINGS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "{runtime}"
"""


@contextmanager
def private_podman(root: Path = ROOT) -> Iterator[Path]:
    """Yields its socket; removed completely at the end."""
    clear(root)
    root.mkdir()
    (root / "containers.conf").write_text(SETTINGS.format(runtime=shutil.which("runc") or "/usr/sbin/runc"))
    socket = root / "podman.sock"
    command = ["podman", "--root", root / "root", "--runroot", root / "runroot", "--storage-driver", "vfs"]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "CONTAINERS_CONF": f"{root}/containers.conf",
    }
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "system", "service", "--time=0", f"unix://{socket}"], env=environment, stdout=log, stderr=log
        )
    try:
        for _ in range(150):
            if answers(socket):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"podman did not answer: {(root / 'log').read_text()[-2000:]}")
        yield socket
    finally:
        process.terminate()
        process.wait(30)
        clear(root)
