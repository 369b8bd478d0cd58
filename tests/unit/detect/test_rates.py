"""One false alarm in 1000 node-years, all streams together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.detect.rates import MINUTES_PER_YEAR, ObservationRate, observations_per_year, split, threshold
from kickwatch.errors import ConfigError


def test_one_stream_once_a_minute() -> None:
    assert observations_per_year(60.0) == 525_960.0
    assert threshold(1, MINUTES_PER_YEAR) == 525_960_000.0
    assert threshold(1, MINUTES_PER_YEAR) <= 5.3e8


@given(st.lists(st.floats(1.0, 1e8), min_size=1, max_size=20), st.floats(1.0, 1e5))
def test_the_shares_add_up_to_the_promise(rates: list[float], node_years: float) -> None:
    shares = split(tuple(ObservationRate(str(i), rate) for i, rate in enumerate(rates)), node_years)
    assert sum(share.false_alarms_per_year for share in shares) == pytest.approx(1.0 / node_years)
    assert all(share.threshold == len(rates) * share.observations_per_year * node_years for share in shares)


def test_stress_mode_has_its_own_thresholds() -> None:
    assert threshold(6, observations_per_year(1.0, per_trial=8)) == pytest.approx(6 * 8 * 60 * 525_960_000.0)


@pytest.mark.parametrize(("interval_s", "per_trial"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (60.0, 0)])
def test_a_rate_that_makes_no_sense_is_refused(interval_s: float, per_trial: int) -> None:
    with pytest.raises(ConfigError):
        observations_per_year(interval_s, per_trial)


@pytest.mark.parametrize(("streams", "per_year"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_threshold_without_streams_is_refused(streams: int, per_year: float) -> None:
    with pytest.raises(ConfigError):
        threshold(streams, per_year)
