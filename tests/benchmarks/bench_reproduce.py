"""The native loop of `reproduce` compared with a plain script of the same steps, interleaved: seconds per loop.

In each loop the script does the steps of the test published in 2017: make a memory cgroup, write both limits, enter it,
create and unlink a file. Needs root; cgroup v1 or v2. Leaves nothing.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from kickwatch.experiment.native_loops import native_loops
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.lock import NodeLock

LOOPS, BLOCKS, PROMISED = 1000, 7, 1.1
SCRIPT = """
import os, sys, time
parent, home, loops, limits = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
def put(path, text):
    with open(path, "w") as file:
        file.write(text)
pid = str(os.getpid())
os.chdir(parent)
since = time.perf_counter()
for i in range(loops):
    name = "kickwatch-%d" % i
    os.mkdir(name)
    for limit in limits:
        put(name + "/" + limit, "1G")
    put(name + "/cgroup.procs", pid)
    open("/tmp/kickwatch-bench", "w").close()
    os.unlink("/tmp/kickwatch-bench")
print(time.perf_counter() - since)
put(home + "/cgroup.procs", pid)
"""


def scripted(cgroups: Cgroups) -> float:
    """Seconds per loop of the plain script."""
    parent = cgroups.ensure_own("kickwatch-bench")
    v1 = cgroups.version is CgroupVersion.V1
    limits = "memory.limit_in_bytes,memory.kmem.limit_in_bytes" if v1 else "memory.max"
    home = str(cgroups.memcg_dir_of("self"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(parent), home, str(LOOPS), limits],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(done.stdout) / LOOPS
    finally:
        remove_tree(parent)


async def native(cgroups: Cgroups) -> float:
    """Seconds per loop of `reproduce`."""
    async with native_loops(cgroups, scratch=Path(tempfile.gettempdir())) as loops:
        created = await loops.create(LOOPS, lambda _: None)
        await loops.remove(LOOPS)
    return created.loop_ns / 1e9 / LOOPS


async def main() -> int:
    """Run interleaved blocks; returns 0 if the promise holds."""
    if os.geteuid() != 0:
        sys.exit("bench_reproduce: run as root")
    ratios = []
    with NodeLock():
        cgroups = Cgroups.read()
        for _ in range(BLOCKS):
            plain = await asyncio.to_thread(scripted, cgroups)
            ratios.append(await native(cgroups) / plain)
    middle = median(ratios)
    spread = f"min {min(ratios):.3f}, max {max(ratios):.3f}"
    print(f"native / plain script, seconds per loop: median {middle:.3f}, {spread} (promised at most {PROMISED})")
    return 0 if middle <= PROMISED else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
