"""From alarm to recovery and back, without flapping.

An alarm needs evidence against "the mean is at most the allowance". Its end needs evidence as well, against "the mean
is still at least a ceiling". The mere lack of observations is no evidence; observed containers that did nothing are.

The ceiling of a plain fault is a fifth of the containers. That is far above the allowance, so 60 containers are enough
to see that the fault is gone. A weak fault, with a mean between allowance and ceiling, contradicts both nulls: its
alarm would be raised and end in turn, for ever. The bet that won the money tells the two apart, since a small stake
wins much on a weak fault only. After a weak fault the ceiling is the allowance itself. Then nothing lies between the
two nulls, and only an error, whose rate is bounded, can change the alarm. That recovery takes hundreds of containers.
"""

from collections.abc import Iterable

import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.wager import Bets, Null, SavedWealth, Wager, Wealth

RECOVERY_THRESHOLD = 1e4  # observations to a wrong recovery while the mean stays at the ceiling or above
LEAST_CEILING = 0.02  # of a weak fault: proof that a mean is below 0.001 would take a year
MOST_CLIP = 4.0
STRONG_PART = 22  # the bets of 22/64 and more make the money on means from about 0.35 on

# Half the money is on "never again": that is what a repaired kernel looks like. The rest is for a kernel that still
# broadcasts now and then.
CONFIDENT = Bets(parts=(64, 60, 56, 50, 44, 36, 28, 18, 8), shares=(128, 16, 16, 16, 16, 16, 16, 16, 16))


class Ceiling(msgspec.Struct, frozen=True):
    """A mean of min(x, clip), in the unit of the observation. Below it a stream has recovered."""

    mean: float
    clip: float


PLAIN = Ceiling(0.2, 1.0)  # of the containers observed: four times the allowance of the creation path


class Watched(msgspec.Struct, frozen=True):
    """A stream's state: whether its alarm holds, whether the fault is weak, and the evidence for the next change."""

    alerted: bool
    weak: bool
    alarm: Wealth
    recovery: Wealth


class SavedWatched(msgspec.Struct, frozen=True):
    """The state as it is written to disk."""

    alerted: bool
    weak: bool
    alarm: SavedWealth
    recovery: SavedWealth


class Hysteresis:
    """A detector with its two recovery tests."""

    def __init__(self, detector: EDetector, plain: Ceiling = PLAIN, weak: Ceiling | None = None) -> None:
        """`weak`: the ceiling after a weak fault; by default the detector's own null, but at least 0.02."""
        self.detector = detector
        null = detector.wager.null
        self._plain = _at_least(plain)
        self._weak = _at_least(weak or Ceiling(max(null.mean, LEAST_CEILING), min(null.clip, MOST_CLIP)))

    def start(self) -> Watched:
        """No alarm, no evidence."""
        return Watched(alerted=False, weak=False, alarm=self.detector.start(), recovery=self._plain.start())

    def recovery_test(self, state: Watched) -> EDetector:
        """The test whose threshold the evidence of recovery must reach."""
        return self._weak if state.weak else self._plain

    def step(self, state: Watched, x: float) -> Watched:
        """The state after one more observation; `alerted` differs from before when the alarm changed."""
        return self._step_alerted(state, x) if state.alerted else self._step_calm(state, x)

    def scan(self, state: Watched, observations: Iterable[float]) -> tuple[Watched, int]:
        """Step until the alarm changes or the observations end; also how many were used. Equal to `step`, bit for bit.

        The rest of the observations belongs to the new state: scan again from there.
        """
        if state.alerted:
            used = 0
            for x in observations:
                state, used = self._step_alerted(state, x), used + 1
                if not state.alerted:
                    break
            return state, used
        return self._scanned(state, *self.detector.scan(state.alarm, observations))

    def step_zeros(self, state: Watched, observations: int, trials: int = 1) -> tuple[Watched, int]:
        """As `scan` of that many zeros in each of `trials`, bit for bit, but in no time after many of them."""
        zeros = observations * trials
        if state.alerted:
            return self.scan(state, [0.0] * zeros)
        return self._scanned(state, *self.detector.step_zeros(state.alarm, zeros))

    def since_epoch(self) -> EpochEProcess:
        """The same bets as an e-process, for pooling."""
        return EpochEProcess(self.detector.wager)

    def _scanned(self, state: Watched, alarm: Wealth, alarmed: bool) -> tuple[Watched, int]:
        calm = Watched(False, state.weak, alarm, state.recovery)
        return (self._raise(calm) if alarmed else calm), alarm.steps - state.alarm.steps

    def _step_calm(self, state: Watched, x: float) -> Watched:
        alarm = self.detector.step(state.alarm, x)
        calm = Watched(False, state.weak, alarm, state.recovery)
        return self._raise(calm) if self.detector.alarmed(alarm) else calm

    def _raise(self, calm: Watched) -> Watched:
        _, part = max(zip(calm.alarm.values, self.detector.wager.bets.parts, strict=True))
        return Watched(True, part < STRONG_PART, calm.alarm, self._plain.start())

    def _step_alerted(self, state: Watched, x: float) -> Watched:
        test = self.recovery_test(state)
        clip = test.wager.null.clip
        recovery = test.step(state.recovery, clip - min(x, clip))
        if not test.alarmed(recovery):
            return Watched(True, state.weak, state.alarm, recovery)
        return Watched(False, state.weak, self.detector.start(), recovery)

    def save(self, state: Watched) -> SavedWatched:
        """The state in a form that JSON keeps to the last bit."""
        alarm = self.detector.wager.save(state.alarm)
        return SavedWatched(state.alerted, state.weak, alarm, self.recovery_test(state).wager.save(state.recovery))

    def restore(self, saved: SavedWatched) -> Watched:
        """The inverse of `save`. Raises StaleStateError if it was saved with another null or other bets."""
        alarm = self.detector.wager.restore(saved.alarm)
        test = self._weak if saved.weak else self._plain
        return Watched(saved.alerted, saved.weak, alarm, test.wager.restore(saved.recovery))


def _at_least(ceiling: Ceiling) -> EDetector:
    """The test of "the mean is at least the ceiling"; its observations are clip - x."""
    return EDetector(Wager(Null(mean=ceiling.clip - ceiling.mean, clip=ceiling.clip), CONFIDENT), RECOVERY_THRESHOLD)
