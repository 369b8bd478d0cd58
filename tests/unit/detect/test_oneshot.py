"""`kickwatch trial`: how many containers each verdict needs."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect import oneshot
from kickwatch.detect.lives import Churned
from kickwatch.detect.oneshot import OneShot, Run
from kickwatch.detect.pairs import PairWager
from kickwatch.detect.streams import Allowance, StreamName, allowance_of
from kickwatch.model import Verdict

CANARY, SIGNATURE = allowance_of(StreamName.CANARY), allowance_of(StreamName.SIGNATURE)


def after(test: OneShot, containers: list[float], run: Run | None = None) -> Run:
    run = run or test.start()
    for x in containers:
        run = test.container(run, x)
    return run


def test_23_containers_without_a_broadcast_are_quiet_and_22_are_not_enough() -> None:
    test = OneShot()
    assert after(test, [0.0] * 23).verdict is Verdict.QUIET
    assert after(test, [0.0] * 22).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("canary", [None, CANARY])
def test_8_containers_with_3_each_are_broadcasting(canary: object) -> None:
    test = OneShot(canary=CANARY if canary else None)
    assert after(test, [3.0] * 8).verdict is Verdict.BROADCASTING


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("canary", [None, CANARY])
def test_4_containers_with_1_broadcast_each_or_3_with_3_are_broadcasting_and_no_fewer(
    pairs: bool, canary: Allowance | None
) -> None:
    test = OneShot(canary=CANARY, signature=SIGNATURE)  # as `kickwatch trial` runs it; both may stay at zero
    if pairs:
        test = OneShot(canary=canary, signature=SIGNATURE, pairs=PairWager())
    assert after(test, [1.0] * 4).verdict is Verdict.BROADCASTING
    assert after(test, [1.0] * 3).verdict is Verdict.UNKNOWN
    assert after(test, [3.0] * 3).verdict is Verdict.BROADCASTING
    assert after(test, [3.0] * 2).verdict is Verdict.UNKNOWN


def test_the_canary_alone_can_decide_broadcasting() -> None:
    test = OneShot(canary=CANARY)
    run = after(test, [0.0] * 5)
    for _ in range(6):
        run = test.canary(run, 5.0)
    assert run.verdict is Verdict.BROADCASTING


def test_a_canary_of_zeros_does_not_decide_quiet() -> None:
    test = OneShot(canary=CANARY)
    run = test.start()
    for _ in range(1000):
        run = test.canary(run, 0.0)
    assert run.verdict is Verdict.UNKNOWN


def test_a_canary_without_a_stake_is_refused() -> None:
    test = OneShot()
    with pytest.raises(ValueError, match="before the run"):
        test.canary(test.start(), 5.0)


def test_a_signature_without_a_stake_is_refused() -> None:
    test = OneShot()
    with pytest.raises(ValueError, match="before the run"):
        test.signature(test.start(), 32.0)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_signature_decides_at_once(pairs: bool) -> None:
    test = OneShot(canary=CANARY, signature=SIGNATURE, pairs=PairWager() if pairs else None)
    assert test.signature(test.start(), 32.0).verdict is Verdict.BROADCASTING
    assert test.signature(test.start(), 5.0).verdict is Verdict.UNKNOWN


def test_pairs_without_a_stake_are_refused() -> None:
    test = OneShot()
    with pytest.raises(ValueError, match="before the run"):
        test.paired(test.start(), (1.0,))


@pytest.mark.parametrize(("canary", "containers"), [(None, 19), (CANARY, 20)])
def test_pairs_alone_decide_after_20_containers(canary: Allowance | None, containers: int) -> None:
    test = OneShot(canary=canary, signature=SIGNATURE, pairs=PairWager())
    run = test.paired(test.start(), (1.0,) * containers)
    assert (run.verdict, run.elsewhere) == (Verdict.BROADCASTING, True)
    assert test.paired(test.start(), (1.0,) * (containers - 1)).verdict is Verdict.UNKNOWN


def test_pairs_convict_after_the_creation_path_was_acquitted() -> None:
    test = OneShot(pairs=PairWager())
    run = after(test, [0.0] * 23)
    assert run.verdict is Verdict.QUIET
    run = test.paired(run, (1.0,) * 23)
    assert (run.verdict, run.elsewhere) == (Verdict.BROADCASTING, True)
    assert test.paired(run, (-3.0,) * 500).verdict is Verdict.BROADCASTING


def test_pairs_that_were_not_needed_are_no_reason() -> None:
    test = OneShot(pairs=PairWager())
    run = test.paired(after(test, [3.0] * 8), (1.0,) * 23)
    assert (run.verdict, run.elsewhere) == (Verdict.BROADCASTING, False)


def test_ties_do_not_delay_the_creation_path() -> None:
    test = OneShot(canary=CANARY, signature=SIGNATURE, pairs=PairWager())
    run = test.paired(test.start(), (0.0,) * 40)
    assert after(test, [1.0] * 4, run).verdict is Verdict.BROADCASTING


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25))
def test_the_evidence_is_the_mean_of_its_stakes(xs: list[float]) -> None:
    test = OneShot(canary=CANARY, signature=SIGNATURE, pairs=PairWager())
    run = test.paired(test.start(), tuple(xs))
    assert run.pairs is not None
    money = run.pairs.total().capped(1e300)
    assert test.evidence(run)[0].capped(1e300) == pytest.approx(1 / 2 + 1 / 4 + 1 / 8 + money / 8)


def test_pairs_need_as_many_containers_as_they_say() -> None:
    test = OneShot(pairs=PairWager())
    run = test.paired(after(test, [0.0] * 23), (1.0, 0.0) * 11)
    more = test.needs(run, convicted=True)
    assert test.needs(run) == 0
    assert more
    pattern = ((1.0, 0.0) * 40)[:more]
    assert test.paired(run, pattern).verdict is Verdict.BROADCASTING
    assert test.paired(run, pattern[:-1]).verdict is Verdict.QUIET


def test_pairs_that_never_decide_need_no_number() -> None:
    test = OneShot(pairs=PairWager())
    run = test.paired(after(test, [0.0] * 23), (1.0, -1.0) * 11)
    assert test.needs(run, convicted=True) is None


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_burst_is_never_better_evidence_for_quiet_than_its_lives(rises: list[int], random: Random) -> None:
    """Whichever containers the late broadcasts came from, the evidence is no more than with their lives known."""
    test = OneShot()
    known, late = [], 0
    for rise in rises:
        kept = random.randint(0, rise)
        known.append(float(kept))
        late += rise - kept
    burst = test.churn(test.start(), Churned(tuple(known), float(late))).quiet.total()
    truth = test.churn(test.start(), Churned(tuple(map(float, rises)))).quiet.total()
    assert burst.capped(1e300) <= truth.capped(1e300) * (1.0 + 1e-12)


def test_a_verdict_is_final() -> None:
    test = OneShot()
    assert after(test, [0.0] * 23 + [9.0] * 50).verdict is Verdict.QUIET
    assert after(test, [9.0] * 10 + [0.0] * 500).verdict is Verdict.BROADCASTING


def test_a_stricter_run_needs_more() -> None:
    assert OneShot(alpha=1e-6).needs(OneShot(alpha=1e-6).start()) == 35
    assert OneShot(alpha=1e-2).needs(OneShot(alpha=1e-2).start()) == 12


def test_nothing_observed_needs_23() -> None:
    test = OneShot()
    assert test.needs(test.start()) == 23


def test_a_decided_run_needs_none() -> None:
    assert OneShot().needs(after(OneShot(), [0.0] * 23)) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 3.0]), max_size=12))
def test_it_needs_as_many_containers_as_it_says(seen: list[float]) -> None:
    test = OneShot()
    run = after(test, seen)
    more = test.needs(run)
    assert more is not None
    pattern = seen or [0.0]
    assert after(test, seen + [pattern[i % len(pattern)] for i in range(more)]).verdict is not Verdict.UNKNOWN
    if more:
        shorter = after(test, seen + [pattern[i % len(pattern)] for i in range(more - 1)])
        assert shorter.verdict is Verdict.UNKNOWN


def test_no_advice_where_too_many_would_be_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    test = OneShot()
    monkeypatch.setattr(oneshot, "MOST_MORE", 22)
    assert test.needs(test.start()) is None
    assert test.needs(after(test, [0.0])) == 22


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_an_error_rate_that_makes_no_sense_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="error rate"):
        OneShot(alpha=alpha)
