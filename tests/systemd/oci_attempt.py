"""Make one container with the oci engine in a sandbox: `oci_attempt.py NAME`; exits with 0 on success.

Run by the Python in which kickwatch is installed. Errors go to stderr.
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

_EXEC_TIMEOUT_S = 15.0


async def bounding_set_of_container(name: str, program: bytes) -> int:
    """Make a container; return the bounding set of its program, a bit per capability."""
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
        return await asyncio.to_thread(bounding_set, await engine.pid(container_id))
    finally:
        await engine.remove(container_id)
        await engine.remove_image(image)
        await engine.close()
        await asyncio.to_thread(reap_cgroups, await asyncio.to_thread(Cgroups.read), [name])


def bounding_set(pid: int) -> int:
    """The process's bounding set; waits until the runtime has executed the program."""
    deadline = time.monotonic() + _EXEC_TIMEOUT_S
    while True:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
        if not bounding or time.monotonic() > deadline:
            return bounding
        time.sleep(0.05)


if __name__ == "__main__":
    left = asyncio.run(bounding_set_of_container(sys.argv[1], binary("workload").read_bytes()))
    sys.exit(f"the container's program has capabilities in its bounding set: {left:#x}" if left else 0)
