"""Containers per second with all probes armed, compared with a plain SDK loop and a shell loop of `docker run --rm`.

The SDK loop has the same concurrency as kickwatch; the shell loop runs one container after another, as typed by hand.
All run interleaved, block by block, with the same image and network, so that drift of the machine affects all equally;
the first block is not counted. Prints each block, and the median of the blocks' ratios with its spread. At concurrency
1 the shell ratio compares equal concurrency and has no promised value. Needs root, a Docker Engine and the csd
tracepoint.

    usage: bench_churn.py [--blocks N] [--containers N] [--concurrency N ...]
"""

import argparse
import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import docker
from kickwatch.configuration.loading import load
from kickwatch.experiment.rig import Rig
from kickwatch.node.lock import NodeLock
from kickwatch.workload.names import new_trial_id

SOCKET = "/var/run/docker.sock"
# Nothing releases the program from its barrier in a plain loop, so its deadline does.
BARE_COMMAND = ["--deadline-ms", "1"]


async def observed(rig: Rig, containers: int) -> float:
    """Seconds for `containers` containers with probes armed, barrier, accounting check and counters per container."""
    workload = rig.workload(new_trial_id(), containers)
    since = time.perf_counter()
    done = await workload.churn(containers)
    elapsed_s = time.perf_counter() - since
    failed = [container.failure for container in done if container.failure]
    if failed:
        sys.exit(f"bench_churn: {failed[0]}")
    return elapsed_s


def bare_sdk(image: str, containers: int, concurrency: int, parent: str) -> float:
    """Seconds for a plain loop of create, start, wait, remove with the SDK, with a client per thread."""
    local = threading.local()

    def one(_: int) -> None:
        if not hasattr(local, "client"):
            local.client = docker.DockerClient(base_url=f"unix://{SOCKET}")
        container = local.client.containers.create(
            image, command=BARE_COMMAND, network_mode="none", cgroup_parent=parent, log_config={"type": "none"}
        )
        container.start()
        container.wait()
        container.remove()

    with ThreadPoolExecutor(concurrency) as pool:
        since = time.perf_counter()
        list(pool.map(one, range(containers)))
        return time.perf_counter() - since


def shell(image: str, containers: int) -> float:
    """Seconds for `docker run --rm` in a shell loop."""
    run = f"docker run --rm --network none {image} {' '.join(BARE_COMMAND)} > /dev/null 2>&1"
    since = time.perf_counter()
    subprocess.run(["sh", "-c", f"for i in $(seq {containers}); do {run}; done; true"], check=True)
    return time.perf_counter() - since


def show(name: str, ratios: list[float], promised: float | None) -> bool:
    """Print a line with median and spread; return whether the promise holds."""
    middle = median(ratios)
    kept = promised is None or middle >= promised
    promise = "no promise" if promised is None else f"promised {promised}: {'kept' if kept else 'MISSED'}"
    print(f"{name}: median {middle:.3f}, min {min(ratios):.3f}, max {max(ratios):.3f} ({promise})")
    return kept


async def measure(concurrency: int, blocks: int, containers: int) -> bool:
    """Run interleaved blocks at one concurrency; True if the promises hold."""
    config = load(None, [f"workload.concurrency={concurrency}"]).config
    against_sdk, against_shell = [], []
    async with Rig.open(config) as rig:
        image, parent = rig.setup.image, rig.setup.parent_name
        for block in range(blocks + 1):
            ours = await observed(rig, containers)
            sdk = await asyncio.to_thread(bare_sdk, image, containers, concurrency, parent)
            loop = await asyncio.to_thread(shell, image, containers)
            rates = [containers / seconds for seconds in (ours, sdk, loop)]
            counted = "" if block else " (warm-up, not counted)"
            shown = ", ".join(
                f"{name} {rate:.2f}" for name, rate in zip(("observed", "SDK", "shell"), rates, strict=True)
            )
            print(f"block {block}, containers a second: {shown}{counted}")
            if block:
                against_sdk.append(sdk / ours)
                against_shell.append(loop / ours)
    shell_promise = None if concurrency == 1 else 1.2
    return all(
        [
            show(f"concurrency {concurrency}: observed / bare SDK loop of the same concurrency", against_sdk, 0.95),
            show(f"concurrency {concurrency}: observed / shell loop of docker run --rm", against_shell, shell_promise),
        ]
    )


async def main() -> int:
    """Run the blocks; returns 0 if the promises hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--containers", type=int, default=12)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    with NodeLock():
        kept = [await measure(concurrency, given.blocks, given.containers) for concurrency in given.concurrency]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
