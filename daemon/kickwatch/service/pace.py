"""How often this node observes at most: what the detectors' thresholds follow from."""

from kickwatch.configuration.limits import least_period_s
from kickwatch.configuration.types import Config
from kickwatch.detect.rates import Pace


def pace_of(config: Config) -> Pace:
    """The configuration's pace: a trial has two windows and a pause, and no more of them fit than the budget allows."""
    return Pace(config.workload.containers_per_trial, least_period_s(config))
