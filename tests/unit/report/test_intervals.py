"""Effect sizes and intervals, against known values."""

from random import Random

import pytest

from kickwatch.report.intervals import Block, bootstrapped, effect, exact_share, mean, superiority


def blocks(center: float, count: int, seed: int, spread: float = 1.0) -> list[Block]:
    random = Random(seed)  # noqa: S311 -- samples, no secret
    return [Block(random.gauss(center, spread) * 20, 20) for _ in range(count)]


def test_a_mean_is_weighted() -> None:
    assert mean([Block(10.0, 1), Block(10.0, 9)]) == 2.0
    assert mean([]) is None
    assert mean([Block(0.0, 0)]) is None


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # the textbook's: 0 of 10, 5 of 10, 10 of 10 (Clopper-Pearson, 95 %), and the rule of three at 0 of 3000
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (0, 3000, 0.0, 0.001229)],
)
def test_exact_shares(hits: int, of: int, low: float, high: float) -> None:
    found = exact_share(hits, of)
    assert found.value == hits / of
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


def test_an_exact_share_of_many_is_near_the_normal_interval() -> None:
    found = exact_share(30_000, 1_000_000)
    assert found.low == pytest.approx(0.03 - 1.96 * (0.03 * 0.97 / 1e6) ** 0.5, abs=2e-6)
    assert found.high == pytest.approx(0.03 + 1.96 * (0.03 * 0.97 / 1e6) ** 0.5, abs=2e-6)


def test_no_containers_are_no_share() -> None:
    assert exact_share(0, 0) == (None, None, None)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    found = bootstrapped(blocks(5.0, 200, 1))
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.15)
    assert found.low < 5.0 < found.high


def test_a_difference_is_found_and_none_is_not() -> None:
    same = effect(blocks(5.0, 100, 1), blocks(5.0, 100, 2))
    assert same.difference.low < 0.0 < same.difference.high  # type: ignore[operator]
    assert same.superiority == pytest.approx(0.5, abs=0.1)
    more = effect(blocks(5.0, 100, 1), blocks(6.0, 100, 2))
    assert 0.5 < more.difference.low < 1.0 < more.difference.high < 1.5  # type: ignore[operator]
    assert more.ratio.low < 1.2 < more.ratio.high  # type: ignore[operator]
    assert more.superiority == pytest.approx(0.76, abs=0.08)  # of two unit normals one apart


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        found = effect(blocks(3.0, 30, 2 * seed), blocks(3.5, 30, 2 * seed + 1)).difference
        covered += found.low < 0.5 < found.high  # type: ignore[operator]
    assert covered >= 50  # of 57 expected; fewer than 50 has a chance of 2e-3


def test_figures_are_the_same_every_time() -> None:
    assert effect(blocks(5.0, 50, 1), blocks(6.0, 50, 2)) == effect(blocks(5.0, 50, 1), blocks(6.0, 50, 2))


def test_too_few_blocks_have_no_interval() -> None:
    found = effect(blocks(5.0, 3, 1), blocks(6.0, 50, 2))
    assert found.difference.value is not None
    assert (found.difference.low, found.difference.high) == (None, None)


def test_zero_before_has_no_ratio() -> None:
    found = effect([Block(0.0, 20)] * 20, blocks(6.0, 50, 2))
    assert found.ratio == (None, None, None)
    assert found.superiority == 1.0


def test_superiority_counts_ties_half() -> None:
    assert superiority([Block(1.0, 1)], [Block(1.0, 1)]) == 0.5
    assert superiority([Block(2.0, 1), Block(1.0, 1)], [Block(1.0, 1)]) == 0.25
    assert superiority([], [Block(1.0, 1)]) is None
