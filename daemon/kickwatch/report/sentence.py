"""The verdict in words: what was tested, what it excludes, which other broadcasts were seen, and the next step."""

from collections.abc import Iterable, Sequence

import msgspec

from kickwatch.detect.classes import TEXT_PATCHING, BroadcastClass, class_of, jit_broadcasts
from kickwatch.detect.figures import counted, creation_broadcasts, merge_cells
from kickwatch.detect.verdict import ReasonedVerdict, VerdictReason
from kickwatch.model import Cell, Trial, Verdict, WindowKind
from kickwatch.outlets.broadcast import bpftrace_line

MIN_SHOWN = 0.05  # broadcasts per container above the quiet window: fewer are chance
MAX_MEASURED = 42.0  # for BPF programs, on arm64 7.2 with the systemd cgroup driver
_DIGITS = 3
_WHY_ALLOWED = {
    BroadcastClass.DESTROY: "while containers are removed",
    BroadcastClass.PERCPU_BALANCE: "by the percpu allocator's worker",
    BroadcastClass.ELSEWHERE: "from elsewhere, below the 0.5 per container that would leave the verdict open",
    BroadcastClass.TRACING: "by a tracer that was switched on or off",
}


class OtherBroadcasts(msgspec.Struct, frozen=True, kw_only=True):
    """Broadcasts during churn from outside the creation path; per container, above the quiet window."""

    heard_as: BroadcastClass
    reason: str
    func: str
    origin: str
    path: str
    broadcasts_per_container: float
    stack: tuple[str, ...]


def other_broadcasts(trials: Sequence[Trial]) -> tuple[OtherBroadcasts, ...]:
    """All of them over the trials of one run, most frequent first; none if no container counts."""
    containers = sum(len(counted(trial)) for trial in trials)
    if not containers:
        return ()
    quiet = {cell.identity: cell.broadcasts for cell in merge_cells(_cells(trials, WindowKind.QUIET))}
    found = []
    for cell in merge_cells(_cells(trials, WindowKind.CHURN)):
        each = (cell.broadcasts - quiet.get(cell.identity, 0)) / containers
        heard_as = class_of(cell.origin, cell.path)
        if heard_as is not BroadcastClass.CREATION and each >= MIN_SHOWN:
            found.append(_row(cell, heard_as, each))
    return tuple(sorted(found, key=lambda one: -one.broadcasts_per_container))


def _cells(trials: Iterable[Trial], kind: WindowKind) -> list[Cell]:
    return [cell for trial in trials for cell in (trial.churn if kind is WindowKind.CHURN else trial.quiet).cells]


def _row(cell: Cell, heard_as: BroadcastClass, each: float) -> OtherBroadcasts:
    return OtherBroadcasts(
        heard_as=heard_as,
        reason=cell.reason,
        func=cell.func,
        origin=cell.origin.value,
        path=cell.path.value,
        broadcasts_per_container=round(each, _DIGITS),
        stack=cell.stack,
    )


def sentence(trials: Sequence[Trial], judgement: ReasonedVerdict) -> str:
    """The text after `verdict: <word> (<reasons>): `. Lines after the first say what to do next."""
    containers = sum(len(counted(trial)) for trial in trials)
    if judgement.verdict is Verdict.BROADCASTING:
        return "creating containers makes this kernel interrupt every other CPU"
    if judgement.verdict is Verdict.QUIET:
        jit = jit_broadcasts(trials[-1].node.arch, trials[-1].node.kernel)
        return "; ".join([_silence(trials, containers), *(_allowed(one, jit=jit) for one in other_broadcasts(trials))])
    if VerdictReason.BROADCASTS_ELSEWHERE in judgement.reasons:
        return _elsewhere(trials, containers)
    return "this experiment cannot decide"


def _silence(trials: Sequence[Trial], containers: int) -> str:
    broadcasts = sum(creation_broadcasts(trial.churn.cells) for trial in trials)
    made = f"{broadcasts or 'no'} broadcast{'s' if broadcasts > 1 else ''}"
    return (
        f"the creation path made {made} for {containers} containers,"
        " which excludes a broadcast in every third container or more often"
    )


def _allowed(one: OtherBroadcasts, *, jit: bool) -> str:
    """The words for broadcasts that a quiet verdict allows; `jit` is from `jit_broadcasts`."""
    each = f"{one.broadcasts_per_container:g} {one.reason} per container"
    if one.heard_as is not BroadcastClass.BPF:
        return f"{each} {_WHY_ALLOWED[one.heard_as]} ({one.origin})"
    if one.reason == TEXT_PATCHING:
        return f"{each} from static keys of BPF, such as a device program flips ({one.origin})"
    whose = "for BPF programs"
    if jit and one.broadcasts_per_container <= MAX_MEASURED:
        whose = "are this kernel's ordinary cost of seccomp filters and other BPF programs"
    elif jit:
        whose = f"for BPF programs, more than the {MAX_MEASURED:g} measured on healthy nodes"
    return f"{each} {whose} ({one.origin})"


def _same_cell(cell: Cell, one: OtherBroadcasts) -> bool:
    return cell.identity == (one.reason, one.func, one.origin, one.path)


def _elsewhere(trials: Sequence[Trial], containers: int) -> str:
    """Which cells, how many broadcasts per container, and how to find out more."""
    node = trials[-1].node
    unallowed = {BroadcastClass.ELSEWHERE}
    if not jit_broadcasts(node.arch, node.kernel):
        unallowed.add(BroadcastClass.BPF)
    seen = [one for one in other_broadcasts(trials) if one.heard_as in unallowed]
    cells = ", ".join(
        f"{one.broadcasts_per_container:g} {one.reason} ({one.origin}, {one.path}) per container" for one in seen
    )
    worst = next((cell for cell in _cells(trials, WindowKind.CHURN) if seen and _same_cell(cell, seen[0])), None)
    return (
        f"with {containers} containers the kernel broadcast {cells} from outside the creation path:"
        " a worker, a timer or the program in the container may have asked for them\n"
        "next: `kickwatch run` compares windows with and without containers, and alerts within about 30 trials;"
        f" to see who asks: {bpftrace_line(worst, trials[-1].observers.ipis)}"
    )
