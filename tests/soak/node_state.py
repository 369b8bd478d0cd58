"""Count what could leak on a node."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

DROP_CACHES_WAIT_S = 20.0


def node_without_caches() -> dict[str, Any]:
    """`node` after dropping caches: page cache and dentries keep deleted memcgs dying until they are reclaimed."""
    time.sleep(DROP_CACHES_WAIT_S)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    time.sleep(DROP_CACHES_WAIT_S)
    return node()


def node() -> dict[str, Any]:
    """Everything that could leak on the node."""

    def docker(*words: str) -> list[str]:
        listed = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        return sorted(listed.stdout.split())

    cgroups = [str(p) for pattern in ("kickwatch*", "*/kickwatch*") for p in Path("/sys/fs/cgroup").glob(pattern)]
    memory = re.search(r"^memory\s+\d+\s+(\d+)", Path("/proc/cgroups").read_text(encoding="ascii"), re.MULTILINE)
    live = sum(1 for _ in Path("/sys/fs/cgroup/memory").rglob("memory.stat"))
    return {
        "containers": docker("ps", "-aq"),
        "images": docker("images", "-q"),
        "networks": docker("network", "ls", "-q"),
        "cgroups": sorted(cgroups),
        "mounts": len(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()),
        "tracefs": sorted(str(path) for path in Path("/sys/kernel/tracing/instances").glob("*")),
        "bpf_programs": bpf_programs(),
        "dying_memcgs": int(memory[1]) - live if memory and live else 0,
    }


def bpf_programs() -> int:
    """Number of descriptors of BPF programs in all processes."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            count += "prog_type" in path.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
    return count
