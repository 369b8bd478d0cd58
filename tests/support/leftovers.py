"""Lists what kickwatch could leave on a node. If the lists before and after a test are equal, it left nothing."""

import subprocess
from glob import glob
from pathlib import Path


def leftovers() -> dict[str, list[str]]:
    """Docker objects, our cgroups in every hierarchy, tracefs instances."""
    return {
        "containers": _docker("ps", "-aq", "--no-trunc"),
        "images": _docker("images", "-q", "--no-trunc"),
        "networks": _docker("network", "ls", "-q"),
        "volumes": _docker("volume", "ls", "-q"),
        "cgroups": sorted(_cgroups()),
        "tracefs": sorted(str(path) for path in Path("/sys/kernel/tracing/instances").glob("*")),
    }


def _docker(*arguments: str) -> list[str]:
    listed = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return sorted(listed.stdout.split())


def _cgroups() -> list[str]:
    """Not by Path.glob, which fails in Python 3.11 if another's cgroup goes meanwhile."""
    return [path for depth in ("", "*/", "*/*/") for path in glob(f"/sys/fs/cgroup/{depth}kickwatch*")]  # noqa: PTH207
