"""What an alarm says to the engineer it wakes: how many of the last ones, what is allowed, the evidence, since when."""

from math import frexp

from kickwatch.detect.rates import Allowance
from kickwatch.detect.scaled import Scaled
from kickwatch.detect.streams import Name
from kickwatch.detect.track import Turn

# {loud} of the last {all} ...: what they did, beyond which allowance.
_RAISED = {
    Name.ATTRIBUTED: "containers made the creation path broadcast (allowed: {allowed})",
    Name.BURST: (
        "trials had creation-path broadcasts that lie in no single container's life,"
        " {each} per container (allowed: {allowed})"
    ),
    Name.SIGNATURE: "trials kicked all CPUs to create slab caches, {each} times per container (allowed: {allowed})",
    Name.CANARY: "canary batches made the creation path broadcast (allowed: {allowed})",
    Name.CONTENTION: (
        "trials made tasks wait for slab_mutex on the creation path, {each} waits per container (allowed: {allowed}),"
        " the longest {longest_ms} ms"
    ),
    Name.CONTENTION_EXCESS: (
        "unequal trials had more waits for slab_mutex with containers than without (by chance: half of them),"
        " the longest {longest_ms} ms"
    ),
    Name.DESTROY: "trials broadcast while containers were removed, {each} per container (allowed: {allowed})",
    Name.PERCPU_BALANCE: "trials had pcpu_balance_workfn broadcast, {each} per container (allowed: {allowed})",
    Name.BPF: "trials had BPF programs broadcast, {each} times what is allowed here",
    Name.SWEEPS: (
        "trials had the creation path ask one CPU after the other, {each} sweeps of all CPUs per container"
        " (allowed: {allowed})"
    ),
    Name.ELSEWHERE: (
        "unequal trials had more broadcasts from outside the creation path with containers than without (by chance:"
        " half of them)"
    ),
}
_CANARY_BY_COUNTERS = "canary batches raised CAL - TLB, by {each} per memory cgroup and other CPU (allowed: {allowed})"
_UNIT = {Name.ATTRIBUTED: "containers", Name.CANARY: "canary batches"}


def raised(name: Name, turn: Turn, allowance: Allowance | None, *, counters: bool = False) -> str:
    """The sentence of an alarm. `allowance` is None for the swapped streams; `counters`: no probe attributes."""
    what = _CANARY_BY_COUNTERS if counters and name is Name.CANARY else _RAISED[name]
    onset = turn.onset
    told = what.format(
        allowed=allowed(allowance.mean) if allowance else "",
        each=number(onset.total / onset.observations if onset.observations else 0.0),
        longest_ms=number(onset.longest_wait_ns / 1e6),
    )
    return f"{onset.loud} of the last {onset.observations} {told}; {_tail(turn)}"


def ended(name: Name, turn: Turn) -> str:
    """The sentence of a recovery."""
    unit = _UNIT.get(name, "trials")
    return _ended(unit, turn)


def risen(cell: str, turn: Turn, *, before: float, bound: float, since: str) -> str:
    """The sentence of a cell that costs more than its record allows."""
    now = number(turn.onset.total / turn.onset.observations if turn.onset.observations else 0.0)
    return (
        f"{cell}: {now} requests per container and other CPU over the last {turn.onset.observations} trials, where it"
        f" was {number(before)} (allowed: {number(bound)}), since {since}; {_tail(turn)}"
    )


def fallen(cell: str, turn: Turn) -> str:
    """The sentence of such a cell that is as dear as before, or less."""
    return f"{cell}: {_ended('trials', turn)}"


def allowed(mean: float) -> str:
    """`1 in 20`, or `6 each`."""
    return f"1 in {number(1.0 / mean)}" if mean < 1.0 else f"{number(mean)} each"


def number(value: float) -> str:
    """Three digits, as a person reads them: `0.05`, `32`, `5.02`, `1530`."""
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def height(threshold: float) -> str:
    """A threshold in the form of the evidence: `5.3e8`."""
    return str(Scaled(*frexp(threshold)))


def _tail(turn: Turn) -> str:
    evidence = f"evidence {turn.evidence} against a threshold of {height(turn.threshold)}"
    return f"{evidence}; first seen at trial {turn.onset.trial}"


def _ended(unit: str, turn: Turn) -> str:
    return (
        f"the last {turn.silent} {unit} were within bounds, of {turn.recovered_in} since the alarm;"
        f" evidence of recovery {turn.evidence} against a threshold of {height(turn.threshold)}"
    )
