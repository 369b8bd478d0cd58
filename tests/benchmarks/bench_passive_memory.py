"""Memory of a daemon in passive mode, and of the same daemon without it, while runc starts containers beside them.

Without: drained, so it has armed the same observers and starts nothing either. In turn, ROUNDS times each. Prints the
resident memory once the daemon has started and after CONTAINERS containers of others, and what the kernel accounts for
the maps of its probes. Needs root and runc, and no Docker Engine. Exit status 1 beyond the goals.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from spread import spread

from others import Others

ROUNDS, CONTAINERS = 5, 100
SETTLED_S = 4.0  # the control, the first look, and what Python frees then
MOST_MORE_MIB, MOST_MAPS_MIB = 1.0, 8.0  # passive mode may take
SETTINGS = {"engine.kind": "oci", "guard.poll_s": 1, "service.summary_period_s": 10, "log.format": "json"}


class Sizes(NamedTuple):
    """MiB: resident after the start and after the containers; maps of the probes, in the kernel."""

    first: float
    last: float
    maps: float


def main() -> int:
    """1 if passive mode takes more than its goals."""
    found: dict[bool, list[Sizes]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for passive, sizes in found.items():
            sizes.append(measured(passive=passive))
    for passive, runs in found.items():
        for name, figures in zip(Sizes._fields, zip(*runs, strict=True), strict=True):
            least, middle, most = spread(figures)
            print(f"{'passive' if passive else 'without'}, {name}: {middle:.1f} MiB ({least:.1f}-{most:.1f})")
    more = [on.last - off.last for on, off in zip(found[True], found[False], strict=True)]
    maps = found[True][0].maps - found[False][0].maps
    kept = median(more) <= MOST_MORE_MIB and maps <= MOST_MAPS_MIB
    least, middle, most = spread(more)
    print(f"passive mode takes {middle:.1f} MiB more ({least:.1f}-{most:.1f}; goal {MOST_MORE_MIB:.0f}),", end=" ")
    print(f"and {maps:.1f} MiB of maps (goal {MOST_MAPS_MIB:.0f}): {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


def measured(*, passive: bool) -> Sizes:
    """The sizes of one daemon."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        engines = Others(directory, directory, directory)  # of which only runc is used
        with daemon(directory, passive=passive) as pid:
            first = resident_mib(pid)
            engines.start("runc", CONTAINERS)
            time.sleep(SETTLED_S)
            return Sizes(first, resident_mib(pid), maps_mib(pid))


@contextmanager
def daemon(directory: Path, *, passive: bool) -> Iterator[int]:
    """A daemon that starts no container, for either reason. Yields its pid."""
    drain = directory / "drain"
    drain.touch()
    own = {"workload.enabled": str(not passive).lower(), "state.directory": directory, "service.drain_file": drain}
    words = [word for key, value in (SETTINGS | own).items() for word in ("--set", f"{key}={value}")]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kickwatch", "run", *words],
            stderr=output,
            env=os.environ | {"PYTHONNODEBUGRANGES": "1"},  # as the unit sets it
        )
    try:
        until = time.monotonic() + 60
        while "kickwatch.started" not in log.read_text("utf-8"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the daemon did not start: {log.read_text('utf-8')[-2000:]}")
            time.sleep(0.1)
        time.sleep(SETTLED_S)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def resident_mib(pid: int) -> float:
    """VmRSS."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def maps_mib(pid: int) -> float:
    """What the kernel accounts for the BPF maps that the process holds, each once."""
    sizes = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        shown = dict(re.findall(r"^(map_id|memlock):\s*(\d+)$", entry.read_text("ascii"), re.MULTILINE))
        if "map_id" in shown:
            sizes[shown["map_id"]] = int(shown["memlock"])
    return sum(sizes.values()) / 2**20


if __name__ == "__main__":
    sys.exit(main())
