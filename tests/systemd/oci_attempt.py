"""Makes one container without an engine, in whatever sandbox it is run: `oci_attempt.py NAME`; 0 if it went as it must.

Run by the Python that kickwatch is installed in. What hinders is on stderr.
"""

import asyncio
import sys
import time
from pathlib import Path

from kickwatch.native import binary
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.oci_engine import OciEngine
from kickwatch.workload.reaper import reap_cgroups

_SOON_S = 3.0


async def made(name: str, program: bytes) -> int:
    """The capabilities in reach of a container's program, a bit each."""
    engine = OciEngine("", timeout_s=20, root=Path("/run/kickwatch") / name)
    print(await engine.info())  # noqa: T201 -- for the journal
    image = await engine.prepare_image(program)
    spec = ContainerSpec(
        name=name, instance=name, trial=name, image=image, command=("--deadline-ms", "60000"), network="none",
        cgroup_parent=f"/{name}", pids_limit=64,
    )  # fmt: skip
    container_id = await engine.create(spec)
    try:
        await engine.start(container_id)
        return await asyncio.to_thread(in_reach, await engine.pid(container_id))
    finally:
        await engine.remove(container_id)
        await engine.remove_image(image)
        await engine.close()
        await asyncio.to_thread(reap_cgroups, await asyncio.to_thread(Cgroups.read), [name])


def in_reach(pid: int) -> int:
    """Its bounding set, once the runtime has made way for the program."""
    deadline = time.monotonic() + _SOON_S
    while True:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
        if not bounding or time.monotonic() > deadline:
            return bounding
        time.sleep(0.05)


if __name__ == "__main__":
    left = asyncio.run(made(sys.argv[1], binary("workload").read_bytes()))
    sys.exit(f"capabilities are in the container's reach: {left:#x}" if left else 0)
