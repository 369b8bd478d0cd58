"""A made-up node with idle states, and what a trial by counters alone says on this machine."""

from pathlib import Path

from kickwatch.detect.classes import wakeups_told_apart
from kickwatch.node.idle import idle_cpus_halt
from kickwatch.node.kernel import architecture, release
from kickwatch.node.roots import HostRoots

FLAGS = "fpu sse2 monitor nopl"
BUGS = "spectre_v1 mds"


def idling_node(tree: Path, *descriptions: str, cpus: int = 2, flags: str = FLAGS, bugs: str = BUGS) -> HostRoots:
    """Files below `tree`: each CPU has the polling state and one for each description; without any, no driver."""
    _write(tree / "proc/cmdline", "root=/dev/vda quiet\n")
    processor = "processor\t: {}\nflags\t\t: {}\nvmx flags\t: vnmi\nbugs\t\t: {}\n\n"
    _write(tree / "proc/cpuinfo", "".join(processor.format(cpu, flags, bugs) for cpu in range(cpus)))
    _write(tree / "sys/devices/system/cpu/online", f"0-{cpus - 1}\n")
    if descriptions:
        for cpu in range(cpus):
            set_states(tree, cpu, *descriptions)
    return HostRoots.below(tree)


def set_states(tree: Path, cpu: int, *descriptions: str) -> None:
    """The idle states of one CPU."""
    states = [("POLL", "CPUIDLE CORE POLL IDLE"), *((f"C{depth}", what) for depth, what in enumerate(descriptions, 1))]
    for number, (name, what) in enumerate(states):
        state = tree / f"sys/devices/system/cpu/cpu{cpu}/cpuidle/state{number}"
        _write(state / "name", f"{name}\n")
        _write(state / "desc", f"{what}\n")


def reasons_without_a_probe() -> list[str]:
    """Why a trial by counters alone is unknown on this machine."""
    apart = wakeups_told_apart(architecture(), release(), idle_cpus_halt=idle_cpus_halt())
    return ["blind"] if apart else ["blind", "counters_include_wakeups"]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
