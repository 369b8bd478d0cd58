"""How many containers `trial --until-decided` starts next."""

import pytest

from kickwatch.detect.single import Single
from kickwatch.detect.verdict import VerdictReason
from kickwatch.experiment.one_shot import more_of
from kickwatch.model import Verdict


def undecided(more: int | None, *reasons: str) -> Single:
    return Single(
        verdict=Verdict.UNKNOWN,
        reasons=reasons,
        findings=(),
        error_rate=1e-4,
        more_containers=more,
        evidence_broadcasting="1",
        evidence_quiet="1",
        evidence_needed="1e4",
        text="",
    )


@pytest.mark.parametrize(("wanted", "next_trial"), [(3, 10), (14, 14), (900, 200)])
def test_what_silence_needs_is_known_exactly(wanted: int, next_trial: int) -> None:
    assert more_of(undecided(wanted, VerdictReason.INSUFFICIENT_EVIDENCE), 23) == next_trial


@pytest.mark.parametrize(("wanted", "before", "next_trial"), [(20, 23, 11), (5, 23, 10), (99, 60, 30), (900, 800, 200)])
def test_pairs_are_asked_for_in_smaller_portions(wanted: int, before: int, next_trial: int) -> None:
    """The estimate repeats the outlasted pairs of before, and is too high."""
    assert more_of(undecided(wanted, VerdictReason.BROADCASTS_ELSEWHERE), before) == next_trial
