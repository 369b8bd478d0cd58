"""The detector of every stream, with the threshold that its share of the false alarms gives it."""

from kickwatch.detect.comparison import MOST_RULES
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.rates import Pace, Share, Stream, observations_per_year, split
from kickwatch.detect.recovery import LEAST_CEILING, MOST_CLIP, Ceiling, Hysteresis
from kickwatch.detect.streams import SWAPPED, Name, allowance_of
from kickwatch.detect.swap import SwapTest
from kickwatch.detect.wager import Null, Wager

RELATIVE = "relative"
FEW_ALLOWANCES = 5.0


def shares_of(pace: Pace) -> tuple[Share, ...]:
    """The threshold of every stream and of each relative rule: one false alarm in 1000 node-years, all together."""
    per_year = observations_per_year(pace.period_s)
    streams = [Stream(name.value, per_year * (pace.containers if name is Name.ATTRIBUTED else 1)) for name in Name]
    return split((*streams, Stream(RELATIVE, per_year * MOST_RULES)))


def detectors(thresholds: dict[str, float]) -> dict[Name, Hysteresis]:
    """The detector of every stream."""
    tests = {}
    for name in Name:
        if name in SWAPPED:
            tests[name] = SwapTest(thresholds[name.value]).hysteresis
        else:
            allowance = allowance_of(name)
            detector = EDetector(Wager(Null(allowance.mean, allowance.clip)), thresholds[name.value])
            tests[name] = Hysteresis(detector) if name is Name.ATTRIBUTED else averaged(detector)
    return tests


def averaged(detector: EDetector) -> Hysteresis:
    """Alarm and recovery of a stream whose observations are averages, such as broadcasts per container of a trial.

    An average can lie a little above its allowance for ever. So recovery from a fault that was always there asks for
    less than the allowance itself, of observations clipped a little above it: silence ends such an alarm in 44 trials.
    A fault that came in rare heaps is told by its bets and has the usual ceiling: clipped so low it would seem gone.
    """
    null = detector.wager.null
    plain = Ceiling(null.mean, min(FEW_ALLOWANCES * null.mean, null.clip))
    return Hysteresis(detector, plain, Ceiling(max(null.mean, LEAST_CEILING), max(MOST_CLIP, plain.clip)))
