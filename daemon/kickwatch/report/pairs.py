"""The pairs of a trial: how many, how long, how often a half with a container had more than the half without."""

from collections.abc import Callable, Iterable
from typing import Any

from kickwatch.detect.bill import share
from kickwatch.model import HalfFigures, Pair, Trial

_DIGITS = 3


def pairs_summary(trial: Trial) -> dict[str, Any] | None:
    """The pairs in figures, as `trial --json` has them; None for a trial of two whole windows.

    `wins`: the half with a container had more, and no container outlasted it. `losses`: the half without had more. All
    others are `ties`. None for a figure that no pair counted.
    """
    if not trial.pairs:
        return None
    lengths_s = [pair.half_ns / 1e9 for pair in trial.pairs]
    return {
        "count": len(trial.pairs),
        "outlasted": sum(pair.outlasted for pair in trial.pairs),
        "half_s": [round(min(lengths_s), _DIGITS), round(max(lengths_s), _DIGITS)],
        "elsewhere": _score(trial.pairs, lambda half: half.elsewhere),
        "other_waits": _score(trial.pairs, lambda half: half.other_waits),
        "isolated": _score(trial.pairs, lambda half: half.isolated),
    }


def _score(pairs: Iterable[Pair], figure: Callable[[HalfFigures], int | None]) -> dict[str, int] | None:
    score = {"wins": 0, "ties": 0, "losses": 0}
    for pair in pairs:
        churn, quiet = figure(pair.churn), figure(pair.quiet)
        if churn is not None and quiet is not None:
            more = (churn > quiet) - (churn < quiet)
            score["losses" if more < 0 else "wins" if more and not pair.outlasted else "ties"] += 1
    return score if any(score.values()) else None


def elsewhere_score(trials: Iterable[Trial]) -> dict[str, int] | None:
    """`wins`, `ties` and `losses` of broadcasts from elsewhere over all pairs; None if no pair counted them."""
    return _score((pair for trial in trials for pair in trial.pairs), lambda half: half.elsewhere)


def windows_text(trial: Trial, summary: dict[str, Any]) -> str:
    """What the figures were compared over, for the head of the text: pairs of halves, or two windows."""
    pairs = summary["pairs"]
    if pairs is None:
        return f"two windows of {summary['window_s']:.1f} s ({', then '.join(trial.order)}), seed {trial.seed}"
    shortest, longest = (f"{length:.2f}" for length in pairs["half_s"])
    length = shortest if shortest == longest else f"{shortest} to {longest}"
    count, outlasted = pairs["count"], pairs["outlasted"]
    most = max(pair.containers for pair in trial.pairs)
    of = "a container" if most == 1 else f"up to {most} containers"
    late = f"in {outlasted} ({share(100 * outlasted, count, 0):.0f} %) it was not gone in time"
    return (
        f"{count} pair{'s' if count > 1 else ''} of equal times, with {of} and without ({length} s each, order by coin,"
        f" seed {trial.seed}); {late if outlasted else 'all were gone in time'}"
    )
