"""The head of a trial and the key `pairs`: right for pairs of halves and for two whole windows."""

import pytest
from msgspec.structs import replace

from builders import pair, trial
from kickwatch.detect.verdict import judge
from kickwatch.model import HalfFigures, Pair
from kickwatch.report.pairs import pairs_summary
from kickwatch.report.summary import summarise
from screens import prose


def test_a_whole_trial_has_two_windows_and_no_pairs() -> None:
    assert summarise(trial(), judge([trial()]))["pairs"] is None
    assert "two windows of 10.0 s (churn, then quiet), seed 7" in prose(trial())
    assert "pair" not in prose(trial())


def test_a_paired_trial_shows_its_halves_and_how_many_were_outlasted() -> None:
    pairs = (*(pair() for _ in range(22)), pair(outlasted=True))
    text = prose(trial(pairs=pairs))
    pairs_words = "23 pairs of equal times, with a container and without (0.35 s each, order by coin, seed 7)"
    assert f"{pairs_words}; in 1 (4 %) it was not gone in time" in text
    assert "two windows" not in text


def test_halves_of_several_lengths_and_bursts() -> None:
    text = prose(trial(pairs=(pair(half_ms=330, containers=4), pair(half_ms=412, containers=3))))
    assert "2 pairs of equal times, with up to 4 containers and without (0.33 to 0.41 s each, order by coin" in text
    assert "1 pair of equal times, with a container and without (0.35 s each," in prose(trial(pairs=(pair(),)))


def test_the_pairs_in_figures() -> None:
    pairs = (pair(churn=2), pair(churn=1, quiet=1), pair(quiet=3), pair(churn=9, outlasted=True), pair(half_ms=400))
    assert pairs_summary(trial(pairs=pairs)) == {
        "count": 5,
        "outlasted": 1,
        "half_s": [0.35, 0.4],
        "elsewhere": {"wins": 1, "ties": 3, "losses": 1},
        "other_waits": {"wins": 0, "ties": 5, "losses": 0},
        "isolated": {"wins": 1, "ties": 3, "losses": 1},
    }


@pytest.mark.parametrize(
    "uncounted",
    [
        replace(pair(), churn=HalfFigures(elsewhere=1), quiet=HalfFigures(elsewhere=0)),
        replace(pair(), churn=HalfFigures(elsewhere=1), quiet=HalfFigures(elsewhere=0, isolated=3)),
    ],
)
def test_a_figure_that_one_half_did_not_count_is_in_no_score(uncounted: Pair) -> None:
    summary = pairs_summary(trial(pairs=(uncounted, uncounted)))
    assert summary is not None
    assert summary["elsewhere"] == {"wins": 2, "ties": 0, "losses": 0}
    assert (summary["other_waits"], summary["isolated"]) == (None, None)
