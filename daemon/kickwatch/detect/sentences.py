"""Sentences for the engineer whom an alarm wakes: how many observations are hits, what is allowed, the evidence."""

from math import frexp

import msgspec

from kickwatch.detect.scaled import Scaled
from kickwatch.detect.streams import Stream
from kickwatch.detect.track import Turn


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What a sentence needs beside the turn.

    `counters`: no probe attributes, so the canary observed CAL - TLB; `bursts`: several containers start at once;
    `mostly`: the function with the largest excess, empty where it is not known; `passive`: others started them.
    """

    counters: bool = False
    bursts: bool = False
    mostly: str = ""
    passive: bool = False


def raised(stream: Stream, turn: Turn, beside: Beside = Beside()) -> str:  # noqa: B008 - immutable
    """The sentence of an alarm."""
    onset = turn.onset
    by_counters = beside.counters and stream.sentence_by_counters
    sentence = stream.sentence_by_counters if by_counters else stream.sentence
    filled = sentence.format(
        allowed=allowed(stream.allowance.mean) if stream.allowance else "",
        each=number(onset.total / onset.observations if onset.observations else 0.0),
        longest_ms=f"{number(onset.longest_wait_ns / 1e6)} ms" if onset.longest_wait_ns else "not known",
        mostly=f" (mostly {beside.mostly})" if beside.mostly else "",
    )
    return f"{_share(stream, turn, beside)} {filled}; {_evidence(turn)}"


def _share(stream: Stream, turn: Turn, beside: Beside) -> str:
    """`7 of the last 9 trials`. A burst is one observation of as many containers as it has."""
    if beside.passive:
        return f"{turn.onset.hits} of the last {turn.onset.observations} looks at containers of others"
    if stream.paired and beside.bursts:
        return f"{turn.onset.hits} bursts among the last {turn.onset.observations} {stream.unit}"
    observed = f"{stream.unit} with unequal windows" if stream.coin and not stream.paired else stream.unit
    return f"{turn.onset.hits} of the last {turn.onset.observations} {observed}"


def ended(stream: Stream, turn: Turn) -> str:
    """The sentence of a recovery."""
    if not stream.paired:
        return _ended(stream.unit, turn)
    return (
        f"over {turn.recovered_in} trials, {stream.unit} came with no more than as much time without them (the last"
        f" {turn.since_hit} never with more); {_recovery(turn)}"
    )


def risen(cell: str, turn: Turn, *, before: float, bound: float, since: str) -> str:
    """The sentence of a cell that costs more than its record allows."""
    now = number(turn.onset.total / turn.onset.observations if turn.onset.observations else 0.0)
    return (
        f"{cell}: {now} requests per container and other CPU over the last {turn.onset.observations} trials;"
        f" before: {number(before)}, allowed: {number(bound)}; changed: {since}; {_evidence(turn)}"
    )


def fallen(cell: str, turn: Turn) -> str:
    """The sentence of such a cell that costs what it did before, or less."""
    return f"{cell}: {_ended('trials', turn)}"


def allowed(mean: float) -> str:
    """`1 in 20`, or `6 each`."""
    return f"1 in {number(1.0 / mean)}" if mean < 1.0 else f"{number(mean)} each"


def number(value: float) -> str:
    """With three digits: `0.05`, `32`, `5.02`, `1530`."""
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def height(threshold: float) -> str:
    """A threshold in the form of the evidence: `5.3e8`."""
    return str(Scaled(*frexp(threshold)))


def _evidence(turn: Turn) -> str:
    evidence = f"evidence {turn.evidence} against a threshold of {height(turn.threshold)}"
    return f"{evidence}; first seen at trial {turn.onset.trial}"


def _ended(unit: str, turn: Turn) -> str:
    return (
        f"the last {turn.since_hit} {unit} were within bounds, of {turn.recovered_in} since the alarm;"
        f" {_recovery(turn)}"
    )


def _recovery(turn: Turn) -> str:
    return f"evidence of recovery {turn.evidence} against a threshold of {height(turn.threshold)}"
