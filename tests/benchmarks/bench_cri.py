"""Containers per second through a private containerd, everything observed, compared with a loop of the same calls.

The plain loop is grpcio's, with the same pods: create, start, ask until the program has exited, stop, remove. Both run
interleaved, block by block, so that drift of the machine affects both equally; the first block is not counted. Prints
each block, the median time of each step, and the median of the blocks' ratios with its spread. Needs root, containerd.

    usage: bench_cri.py [--blocks N] [--containers N]
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kickwatch.configuration.loading import load
from kickwatch.experiment.rig import Rig
from kickwatch.node.lock import NodeLock
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload import cri_requests
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.names import new_trial_id
from private_containerd import CriClient, private_containerd

PROMISED = 0.95
STEPS = ("sandbox", "create", "start", "wait", "remove")
_POLL_S = 0.005


async def observed(rig: Rig, containers: int, steps: dict[str, list[float]]) -> float:
    """Seconds for `containers` containers with probes armed, barrier, accounting check and counters per container."""
    workload = rig.workload(new_trial_id(), containers)
    since = time.perf_counter()
    done = await workload.churn(containers)
    elapsed_s = time.perf_counter() - since
    failed = [container.failure for container in done if container.failure]
    if failed:
        sys.exit(f"bench_cri: {failed[0]}")
    for name in STEPS:
        steps[name] += [getattr(container, f"{name}_ms") for container in done]
    return elapsed_s


def bare(client: CriClient, rig: Rig, containers: int) -> float:
    """Seconds for a plain loop. Nothing releases the program from its barrier, so its deadline does."""
    trial, since = new_trial_id(), time.perf_counter()
    for index in range(containers):
        spec = ContainerSpec(
            name=f"kickwatch-{trial}-{index}", instance="bench", trial=trial, image=rig.setup.image, network="none",
            command=("--deadline-ms", "1"), cgroup_parent=rig.setup.parent_name,
        )  # fmt: skip
        config = cri_requests.pod(spec)
        made = client.call("RunPodSandbox", cri.RunPodSandboxRequest(config=config), cri.RunPodSandboxResponse)
        request = cri.CreateContainerRequest(
            pod_sandbox_id=made.pod_sandbox_id,
            config=cri_requests.container(spec, own_program=True, unified=False),
            sandbox_config=config,
        )
        container = client.call("CreateContainer", request, cri.CreateContainerResponse).container_id
        client.call("StartContainer", cri.ContainerRequest(container_id=container), cri.Nothing)
        asked = cri.ContainerStatusRequest(container_id=container)
        while client.call("ContainerStatus", asked, cri.ContainerStatusResponse).status.state != cri.CONTAINER_EXITED:
            time.sleep(_POLL_S)
        client.remove(made.pod_sandbox_id)
    return time.perf_counter() - since


async def measure(blocks: int, containers: int) -> list[float]:
    """The ratio of each block."""
    ratios: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    with private_containerd() as engine, engine.client() as client:
        config = load(None, ["engine.kind=cri", f"engine.socket={engine.socket}"]).config
        async with Rig.open(config) as rig:
            for block in range(blocks + 1):
                ours = await observed(rig, containers, steps)
                plain = await asyncio.to_thread(bare, client, rig, containers)
                counted = "" if block else " (warm-up, not counted)"
                rates = f"observed {containers / ours:.2f}, bare {containers / plain:.2f}"
                print(f"block {block}, containers a second: {rates}{counted}", flush=True)
                ratios += [plain / ours] if block else []
    print("steps, median ms: " + ", ".join(f"{name} {median(took):.0f}" for name, took in steps.items()))
    return ratios


async def main() -> int:
    """Run the blocks; returns 0 if the promise holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--containers", type=int, default=12)
    given = parser.parse_args()
    with NodeLock():
        ratios = await measure(given.blocks, given.containers)
    kept = median(ratios) >= PROMISED
    spread = f"median {median(ratios):.3f}, min {min(ratios):.3f}, max {max(ratios):.3f}"
    print(f"observed / bare loop: {spread} (promised {PROMISED}: {'kept' if kept else 'MISSED'})")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
