"""The detector of every stream, with the threshold that follows from its share of the false alarms."""

from kickwatch.detect.comparison import MOST_RULES
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.pair_detector import PairHysteresis
from kickwatch.detect.rates import ObservationRate, Pace, Share, observations_per_year, split
from kickwatch.detect.recovery import LEAST_CEILING, MOST_CLIP, Ceiling, Hysteresis
from kickwatch.detect.streams import STREAMS, Stream, StreamName
from kickwatch.detect.swap import SwapTest
from kickwatch.detect.wager import Null, Wager

RELATIVE = "relative"
FEW_ALLOWANCES = 5.0


def shares_of(pace: Pace) -> tuple[Share, ...]:
    """The threshold of every stream and of each relative rule: one false alarm in 1000 node-years, all together.

    A trial has pairs of halves or two whole windows, never both, so what is left to the streams of either kind is the
    same share, each trial's being spent on one of them. With S streams of pairs in the place of W of windows, a
    threshold of S / W times as much keeps the sum, however many trials of each kind there are.
    """
    trials = observations_per_year(pace.period_s)
    paired = [name for name in StreamName if STREAMS[name].paired]
    windows = [name for name in StreamName if STREAMS[name].coin and not STREAMS[name].paired]
    rates = [_rate(STREAMS[name], trials, pace) for name in StreamName if name not in paired]
    *shares, relative = split((*rates, ObservationRate(RELATIVE, trials * MOST_RULES)))
    (of_windows,) = {share.threshold for share in shares if share.name in windows}
    height = of_windows * len(paired) / len(windows)
    shares += [Share(name.value, trials, height, trials / height) for name in paired]
    return (*shares, relative)


def _rate(stream: Stream, trials: float, pace: Pace) -> ObservationRate:
    return ObservationRate(stream.name.value, trials * (pace.containers if stream.per_container else 1))


def detectors(thresholds: dict[str, float]) -> dict[StreamName, Hysteresis]:
    """The detector of every stream, in the order in which they are judged."""
    return {name: _detector(STREAMS[name], thresholds[name.value]) for name in StreamName}


def _detector(stream: Stream, threshold: float) -> Hysteresis:
    if stream.paired:
        return PairHysteresis(threshold)
    if stream.allowance is None:
        return SwapTest(threshold).hysteresis
    detector = EDetector(Wager(Null(stream.allowance.mean, stream.allowance.clip)), threshold)
    return Hysteresis(detector) if stream.per_container else averaged(detector)


def averaged(detector: EDetector) -> Hysteresis:
    """Alarm and recovery of a stream whose observations are averages, such as broadcasts per container of a trial.

    An average can stay a little above its allowance for ever. Recovery from a fault that was always there therefore
    needs a mean below the allowance itself, of observations clipped a little above it: 44 trials of zeros end such an
    alarm. A fault that came in rare, large numbers is recognised by the bets that won, and has the usual ceiling:
    clipped that low it would seem gone.
    """
    null = detector.wager.null
    plain = Ceiling(null.mean, min(FEW_ALLOWANCES * null.mean, null.clip))
    return Hysteresis(detector, plain, Ceiling(max(null.mean, LEAST_CEILING), max(MOST_CLIP, plain.clip)))
