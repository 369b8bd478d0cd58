"""What an alarm says to the engineer it wakes: how many of the last ones, what is allowed, the evidence, since when."""

from math import frexp

from kickwatch.detect.scaled import Scaled
from kickwatch.detect.streams import Stream
from kickwatch.detect.track import Turn


def raised(stream: Stream, turn: Turn, *, counters: bool = False) -> str:
    """The sentence of an alarm. `counters`: no probe attributes."""
    onset = turn.onset
    observed = f"unequal {stream.unit}" if stream.coin else stream.unit
    sentence = stream.sentence_by_counters if counters and stream.sentence_by_counters else stream.sentence
    told = sentence.format(
        allowed=allowed(stream.allowance.mean) if stream.allowance else "",
        each=number(onset.total / onset.observations if onset.observations else 0.0),
        longest_ms=number(onset.longest_wait_ns / 1e6),
    )
    return f"{onset.loud} of the last {onset.observations} {observed} {told}; {_tail(turn)}"


def ended(stream: Stream, turn: Turn) -> str:
    """The sentence of a recovery."""
    return _ended(stream.unit, turn)


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
