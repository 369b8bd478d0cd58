"""Broadcasts from outside the creation path: those that a quiet verdict allows, in words, and those it does not."""

from collections.abc import Sequence

from kickwatch.detect.classes import TEXT_PATCHING, BroadcastClass, jit_broadcasts
from kickwatch.detect.verdict import BROADCASTS_PER_CONTAINER
from kickwatch.model import Trial
from kickwatch.outlets.elsewhere import OtherBroadcasts, other_broadcasts

MAX_MEASURED = 42.0  # for BPF programs, on arm64 7.2 with the systemd cgroup driver
_WHY_ALLOWED = {
    BroadcastClass.DESTROY: "while containers are removed",
    BroadcastClass.PERCPU_BALANCE: "by the percpu allocator's worker",
    BroadcastClass.FREEZER: "from the cgroup freezer's static key: its runtime freezes a container to kill it",
    BroadcastClass.ELSEWHERE: "from elsewhere, below the 0.5 per container that would leave the verdict open",
    BroadcastClass.TRACING: "by a tracer that was switched on or off",
}


def allowed_words(one: OtherBroadcasts, *, jit: bool) -> str:
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


def unallowed(trials: Sequence[Trial]) -> list[OtherBroadcasts]:
    """What no healthy kernel does with each container, most frequent first."""
    node = trials[-1].node
    unallowed = {BroadcastClass.ELSEWHERE}
    if not jit_broadcasts(node.arch, node.kernel):
        unallowed.add(BroadcastClass.BPF)
    return [one for one in other_broadcasts(trials) if one.heard_as in unallowed]
