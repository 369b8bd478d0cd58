"""The verdict in words: what was tested, what it excludes, which other broadcasts were seen, and the next step."""

from collections.abc import Sequence

from kickwatch.detect.classes import TEXT_PATCHING, BroadcastClass, jit_broadcasts
from kickwatch.detect.figures import counted, creation_broadcasts
from kickwatch.detect.verdict import BROADCASTS_PER_CONTAINER, ReasonedVerdict, VerdictReason
from kickwatch.model import Cell, Trial, Verdict
from kickwatch.outlets.broadcast import bpftrace_line
from kickwatch.outlets.elsewhere import OtherBroadcasts, other_broadcasts

MAX_MEASURED = 42.0  # for BPF programs, on arm64 7.2 with the systemd cgroup driver
_WHY_ALLOWED = {
    BroadcastClass.DESTROY: "while containers are removed",
    BroadcastClass.PERCPU_BALANCE: "by the percpu allocator's worker",
    BroadcastClass.ELSEWHERE: "from elsewhere, below the 0.5 per container that would leave the verdict open",
    BroadcastClass.TRACING: "by a tracer that was switched on or off",
}


def sentence(trials: Sequence[Trial], judgement: ReasonedVerdict) -> str:
    """The text after `verdict: <word> (<reasons>): `. Lines after the first say what to do next."""
    containers = sum(len(counted(trial)) for trial in trials)
    if judgement.verdict is Verdict.BROADCASTING:
        return _broadcasting(trials, judgement, containers)
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
    if one.heard_as is BroadcastClass.ELSEWHERE and one.broadcasts_per_container >= BROADCASTS_PER_CONTAINER:
        return f"{each} from elsewhere, as often without a container by the test of the pairs ({one.origin})"
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


def _broadcasting(trials: Sequence[Trial], judgement: ReasonedVerdict, containers: int) -> str:
    """A broadcast of the creation path is proven by its stack, one from elsewhere by the pairs."""
    creating = "creating containers makes this kernel interrupt every other CPU"
    if VerdictReason.BROADCASTS_ELSEWHERE not in judgement.reasons:
        return creating
    seen = _unallowed(trials)
    proven = (
        f"with {containers} containers the kernel broadcast {_in_words(seen)} from outside the creation path, and the"
        " pairs prove that the containers are the cause\n"
        f"next: see who asks: {_confirm(trials, seen)}"
    )
    return proven if len(judgement.reasons) == 1 else f"{creating}; {proven}"


def _elsewhere(trials: Sequence[Trial], containers: int) -> str:
    """Which cells, how many broadcasts per container, and how to find out more."""
    seen = _unallowed(trials)
    return (
        f"with {containers} containers the kernel broadcast {_in_words(seen)} from outside the creation path:"
        " a worker, a timer or the program in the container may have asked for them\n"
        "next: more containers decide whether they are the cause: `kickwatch trial --until-decided`, or"
        f" `kickwatch run`; to see who asks: {_confirm(trials, seen)}"
    )


def _unallowed(trials: Sequence[Trial]) -> list[OtherBroadcasts]:
    """What no healthy kernel does with each container, most frequent first."""
    node = trials[-1].node
    unallowed = {BroadcastClass.ELSEWHERE}
    if not jit_broadcasts(node.arch, node.kernel):
        unallowed.add(BroadcastClass.BPF)
    return [one for one in other_broadcasts(trials) if one.heard_as in unallowed]


def _in_words(seen: Sequence[OtherBroadcasts]) -> str:
    return ", ".join(
        f"{one.broadcasts_per_container:g} {one.reason} ({one.origin}, {one.path}) per container" for one in seen
    )


def _confirm(trials: Sequence[Trial], seen: Sequence[OtherBroadcasts]) -> str:
    """A command that shows the requests of the most frequent cell, with their stacks."""
    cells = [cell for trial in trials for cell in trial.churn.cells]
    worst = next((cell for cell in cells if seen and _same_cell(cell, seen[0])), None)
    return bpftrace_line(worst, trials[-1].observers.ipis)


def _same_cell(cell: Cell, one: OtherBroadcasts) -> bool:
    return cell.identity == (one.reason, one.func, one.origin, one.path)
