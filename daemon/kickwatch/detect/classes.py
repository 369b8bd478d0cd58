"""Which stream observes a broadcast: a total function over (reason, origin, path). Pure.

Every broadcast belongs to exactly one class, and streams observe every class but TRACING. A new row in the tables of
reasons and origins can therefore not leave a broadcast unobserved. A broadcast that belongs to no attributed class is
ELSEWHERE, and is compared with quiet windows; so are those of the FREEZER that its key does not explain. No stream
observes TRACING, because it voids the trial.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from kickwatch.detect.figures import churn_by_quiet, counted
from kickwatch.detect.pairs import clipped_excess
from kickwatch.detect.strata import Stratum
from kickwatch.model import Cell, Node, Origin, Path, Trial, on_creation_path

KICK = "kick_all_cpus_sync"
TEXT_PATCHING = "do_sync_core"
# "bpf: Introduce bpf_prog_pack allocator" (5.18) is x86's; arm64 interrupts all CPUs for each program to this day.
PACKED_BPF_SINCE = (5, 18)
# "sched: Replace rq::wake_list". Before, a remote wakeup was a reschedule interrupt, which has a row of its own.
WAKEUPS_ARE_CALLS_SINCE = (5, 8)


class BroadcastClass(StrEnum):
    """The cause of a broadcast, as far as its stack shows it."""

    CREATION = "creation"
    DESTROY = "destroy"
    PERCPU_BALANCE = "percpu_balance"
    BPF = "bpf"
    FREEZER = "freezer"
    ELSEWHERE = "elsewhere"
    TRACING = "tracing"


_OF_ORIGIN = {
    Origin.TRACING: BroadcastClass.TRACING,
    Origin.BPF: BroadcastClass.BPF,
    Origin.FREEZER: BroadcastClass.FREEZER,
    Origin.UNKNOWN: BroadcastClass.ELSEWHERE,
}


def class_of(origin: Origin, path: Path) -> BroadcastClass:
    """The class of a broadcast; its reason makes no difference.

    A broadcast of unknown origin is ELSEWHERE, whatever its path: half a stack does not attribute.
    """
    if origin in _OF_ORIGIN:
        return _OF_ORIGIN[origin]
    if on_creation_path(origin, path):
        return BroadcastClass.CREATION
    if path is Path.DESTROY:
        return BroadcastClass.DESTROY
    return BroadcastClass.PERCPU_BALANCE if origin is Origin.PERCPU else BroadcastClass.ELSEWHERE


class Broadcasts(msgspec.Struct, frozen=True):
    """Broadcasts of a window by class.

    `kicks` are among those `created`, `patched` among those of `bpf`, `flips` among those of the `freezer`.
    """

    created: int = 0
    kicks: int = 0  # slab creation that kicks all CPUs, which no healthy kernel does
    destroyed: int = 0
    balanced: int = 0  # pcpu_balance_workfn
    bpf: int = 0
    patched: int = 0  # kernel text patched for BPF: static keys
    freezer: int = 0
    flips: int = 0  # kernel text patched for the freezer: its static key
    elsewhere: int = 0


def broadcasts_of(cells: Iterable[Cell]) -> Broadcasts:
    """The broadcasts of a window's cells, by class."""
    by_class = dict.fromkeys(BroadcastClass, 0)
    kicks = patched = flips = 0
    for cell in cells:
        if not cell.broadcasts:
            continue
        of = class_of(cell.origin, cell.path)
        by_class[of] += cell.broadcasts
        if of is BroadcastClass.CREATION and cell.reason == KICK and cell.origin is Origin.SLAB:
            kicks += cell.broadcasts
        if of is BroadcastClass.BPF:
            patched += patched_by(cell)
        if of is BroadcastClass.FREEZER:
            flips += patched_by(cell)
    return _struct(by_class, kicks, patched, flips)


def patched_by(cell: Cell) -> int:
    """Broadcasts of a cell that patched text; in an older record all of them, if its reason is text patching."""
    if cell.patches is not None:
        return cell.patches
    return cell.broadcasts if cell.reason == TEXT_PATCHING else 0


def _struct(by_class: Mapping[BroadcastClass, int], kicks: int, patched: int, flips: int) -> Broadcasts:
    return Broadcasts(
        created=by_class[BroadcastClass.CREATION],
        kicks=kicks,
        destroyed=by_class[BroadcastClass.DESTROY],
        balanced=by_class[BroadcastClass.PERCPU_BALANCE],
        bpf=by_class[BroadcastClass.BPF],
        patched=patched,
        freezer=by_class[BroadcastClass.FREEZER],
        flips=flips,
        elsewhere=by_class[BroadcastClass.ELSEWHERE],
    )


def elsewhere_above_quiet(trial: Trial, churn: Broadcasts, quiet: Broadcasts) -> float:
    """Broadcasts elsewhere in the churn window above the quiet window's rate. Can be negative.

    Where the trial has pairs, they decide about what falls into their halves. What comes after the last of them, while
    the kernel's work runs out, is compared by its rate.
    """
    by_pairs, longer = clipped_excess(trial.pairs, lambda half: half.elsewhere), churn_by_quiet(trial)
    if by_pairs is None:
        return churn.elsewhere - quiet.elsewhere * longer
    excess, in_halves = by_pairs
    late = churn.elsewhere - in_halves - quiet.elsewhere * max(0.0, longer - 1.0)
    return excess + max(0.0, late)


# Where no other process has a device program attached, the runtime's program switches cgroup_bpf_enabled_key on and
# off: three calls each way on x86 ("x86/alternative: Batch of patch operations", 5.3), one on arm64.
KEY_FLIPS = 6.0
KEY_FLIPS_ELSEWHERE = 2.0
_X86 = frozenset({"x86_64", "i686", "i386"})
SPARE = 0.5  # a new pack of programs now and then
TOLERANCE = 1.25
# A runtime freezes a container to kill all its processes, its pod's pause container as well, and with the systemd
# driver one of them once more, to set its properties. Measured through containerd 1.6 on 6.18: exactly twelve
# broadcasts for each container with its pod, and eighteen with that driver. On a busy node a cgroup does not freeze at
# once, and runc 1.1 thaws and freezes it again, up to twenty times: 23.5 to 27.5 broadcasts per container at a load of
# 5 to 8 on 2 CPUs. So four times the figure of an idle node is allowed.
FREEZES = 4 * 3
LEARNING_CONTAINERS = 10


def flips_allowed(node: Node, containers: int) -> int:
    """Broadcasts that switch the freezer's key for the containers: on cgroup v1 one freeze switches it on and off.

    Cgroup v2 freezes without a key.
    """
    each = KEY_FLIPS if node.arch in _X86 else KEY_FLIPS_ELSEWHERE
    return int(each) * FREEZES * containers if node.cgroup == "v1" else 0


def beyond_flips(seen: Broadcasts, allowed: int) -> Broadcasts:
    """The broadcasts with what the freezer had above the allowed flips counted elsewhere, where it is compared.

    Other containers on the node are frozen as well, so the stack alone does not show whose broadcasts they are.
    """
    beyond = seen.freezer - min(seen.flips, allowed)
    return replace(seen, elsewhere=seen.elsewhere + beyond) if beyond else seen


def windows_of(trial: Trial) -> tuple[Broadcasts, Broadcasts]:
    """The broadcasts of the churn and of the quiet window. Only the containers of the churn window may be frozen."""
    allowed = flips_allowed(trial.node, len(trial.containers))
    return beyond_flips(broadcasts_of(trial.churn.cells), allowed), beyond_flips(broadcasts_of(trial.quiet.cells), 0)


def elsewhere_by(cell: Cell, allowed: int) -> int:
    """Broadcasts of a cell that are compared with quiet windows; `allowed`: flips of the freezer's key."""
    of = class_of(cell.origin, cell.path)
    if of is BroadcastClass.FREEZER:
        return cell.broadcasts - min(patched_by(cell), allowed)
    return cell.broadcasts if of is BroadcastClass.ELSEWHERE else 0


class BpfCost(msgspec.Struct, frozen=True):
    """Broadcasts for the BPF programs of `containers`, beyond the allowed switches of static keys."""

    containers: int = 0
    broadcasts: float = 0.0

    @property
    def learnt(self) -> bool:
        """True once there are enough containers to derive an allowance."""
        return self.containers >= LEARNING_CONTAINERS

    def plus(self, other: "BpfCost") -> "BpfCost":
        """The sum of both."""
        return BpfCost(self.containers + other.containers, self.broadcasts + other.broadcasts)


def bpf_cost(node: Node, containers: int, seen: Broadcasts) -> BpfCost:
    """The cost of one trial's containers. Only on cgroup v2 does a container attach a program to its cgroup."""
    each = KEY_FLIPS if node.arch in _X86 else KEY_FLIPS_ELSEWHERE
    flips = each * containers if node.cgroup == "v2" else 0.0
    return BpfCost(containers, seen.bpf - seen.patched + max(0.0, seen.patched - flips))


def bpf_allowance(stratum: Stratum, known: BpfCost) -> float | None:
    """Broadcasts per container that are allowed; None while they are still being learnt.

    Where programs are packed, loading and freeing one broadcasts nothing. Elsewhere each load and each free does, so
    the cost depends on the kernel and on how many programs the runtime loads (measured on healthy kernels: 2 to 42 per
    container). It is learnt from the first containers under the stratum, and the stream looks for a rise above it.
    """
    if not jit_broadcasts(stratum.arch, stratum.kernel):
        return SPARE
    return TOLERANCE * known.broadcasts / known.containers + SPARE if known.learnt else None


def wakeups_told_apart(arch: str, kernel: str, *, idle_cpus_halt: bool | None) -> bool:
    """Whether CAL - TLB shows broadcasts, and not mostly remote wakeups, on a healthy kernel.

    Since 5.8 a remote wakeup is a function call interrupt, unless the idle CPU polls (`node.idle`). On x86 hardware
    most idle CPUs do (MWAIT), in most virtual machines none does: 0.3 per memory cgroup and other CPU was the most on
    a quiet node, but contention made 52 per memory cgroup. Idle CPUs of arm64 never poll (WFI): 0.29 to 1.0 were
    measured there, as much as a broadcast makes. Other architectures were not measured. Records in which
    `idle_cpus_halt` is None are judged by architecture alone, as they were when they were made.
    """
    if arch not in _X86:
        return False
    return not idle_cpus_halt or (0, 0) < release_of(kernel) < WAKEUPS_ARE_CALLS_SINCE


@lru_cache(maxsize=64)
def jit_broadcasts(arch: str, kernel: str) -> bool:
    """Whether loading and freeing a BPF program broadcasts on a healthy kernel here."""
    return arch not in _X86 or release_of(kernel) < PACKED_BPF_SINCE


def release_of(kernel: str) -> tuple[int, int]:
    """The first two numbers of `uname -r`; (0, 0) where it has none."""
    major, _, rest = kernel.partition(".")
    minor = "".join(digit for digit in rest.partition(".")[0].partition("-")[0] if digit.isdigit())
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def unallowed_above_quiet(trial: Trial) -> float:
    """Broadcasts above the quiet window's that nothing allows: elsewhere, and for BPF where programs are packed."""
    churn, quiet = windows_of(trial)
    above = elsewhere_above_quiet(trial, churn, quiet)
    if jit_broadcasts(trial.node.arch, trial.node.kernel):
        return above
    return above + max(0.0, bpf_cost(trial.node, len(counted(trial)), churn).broadcasts - quiet.bpf)
