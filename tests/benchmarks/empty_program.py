"""An empty BPF program beside the csd program: its cost by the same accounting is the yardstick."""

import platform
import subprocess
from pathlib import Path

from kickwatch.observe.bpf import BpfObject

SOURCE = Path(__file__).with_name("empty.bpf.c")
PROGRAM, TRACEPOINT = "empty", "csd_queue_cpu"


def build(directory: Path) -> None:
    """Compile it as the Makefile compiles the probes."""
    headers = Path("/usr/include") / f"{platform.machine()}-linux-gnu"  # Debian's multiarch directory
    flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v2", f"-I{headers}"]
    subprocess.run(["clang", *flags, "-c", SOURCE, "-o", directory / "empty.bpf.o"], check=True)


def attach(directory: Path) -> BpfObject:
    """Load and attach it. Programs on a tracepoint run in the order in which they were attached."""
    probe = BpfObject("empty", directory=directory)
    probe.attach_raw_tracepoint(PROGRAM, TRACEPOINT)
    return probe
