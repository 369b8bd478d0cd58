"""Everything kickwatch could leave on a node, listed: equal before and after means nothing was left."""

import subprocess
from pathlib import Path


def leftovers() -> dict[str, list[str]]:
    """Docker objects, cgroups of ours in every hierarchy, tracefs instances, our processes' helpers."""
    return {
        "containers": _docker("ps", "-aq", "--no-trunc"),
        "images": _docker("images", "-q", "--no-trunc"),
        "networks": _docker("network", "ls", "-q"),
        "volumes": _docker("volume", "ls", "-q"),
        "cgroups": sorted(str(path) for path in _cgroups()),
        "tracefs": sorted(str(path) for path in Path("/sys/kernel/tracing/instances").glob("*")),
    }


def _docker(*arguments: str) -> list[str]:
    listed = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return sorted(listed.stdout.split())


def _cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [path for pattern in ("kickwatch*", "*/kickwatch*", "*/*/kickwatch*") for path in root.glob(pattern)]
