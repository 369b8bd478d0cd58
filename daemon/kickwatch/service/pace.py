"""How often this node observes at most; the detectors' thresholds follow from that."""

from kickwatch.configuration.limits import least_period_s
from kickwatch.configuration.types import Config
from kickwatch.detect.passive import ALARMING_RECORD_S, LOOKS_PER_RECORD
from kickwatch.detect.rates import Pace


def pace_of(config: Config) -> Pace:
    """A trial has two windows and a pause, and the budget may allow fewer trials than that.

    Passive mode makes a record instead of a trial, and looks several times for each.
    """
    if not config.workload.enabled:
        return Pace(LOOKS_PER_RECORD, ALARMING_RECORD_S)
    return Pace(config.workload.containers_per_trial, least_period_s(config))
