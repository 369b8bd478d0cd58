"""The test of a stream of pairs: alarm and recovery, counted in trials. Pure.

The detector stakes one unit for each trial, and then bets on each of its pairs. So its sum minus the number of *trials*
is a supermartingale under the null, and its threshold is a number of trials, as that of the other streams.

Recovery takes one observation per trial: whether churn halves had more than quiet halves in all, as in the swap test.
"""

from collections.abc import Iterable

from kickwatch.detect import swap
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.pairs import LARGEST_DIFFERENCE, PairWager
from kickwatch.detect.recovery import Hysteresis, Watched
from kickwatch.detect.wager import Wealth, play_trial


class PairDetector(EDetector):
    """Watches the differences of pairs, trial by trial. Its steps are trials."""

    def __init__(self, threshold: float, wager: PairWager | None = None) -> None:
        """`threshold`: the least mean number of trials to a false alarm."""
        self.pairs = wager or PairWager()
        super().__init__(self.pairs, threshold)

    def scan(self, wealth: Wealth, observations: Iterable[float]) -> tuple[Wealth, bool]:
        """Step through the differences of one trial, at least one; True at an alarm."""
        rows = tuple(map(self.wager.factors, observations))
        values, total = play_trial(wealth.values, self.wager.stakes, rows, self.threshold)
        return Wealth(wealth.steps + 1, values), total >= self.threshold


class PairHysteresis(Hysteresis):
    """Alarm and recovery of a stream of pairs. What is given to `scan` is one trial."""

    def __init__(self, threshold: float) -> None:
        """The ceilings are those of the swap test: of trials that churn wins, a tie being half a win."""
        self.trials = PairDetector(threshold)
        super().__init__(self.trials, swap.PLAIN, swap.WEAK)

    def step(self, state: Watched, x: float) -> Watched:
        """The state after a trial of one pair."""
        return self.scan(state, (x,))[0]

    def scan(self, state: Watched, observations: Iterable[float]) -> tuple[Watched, int]:
        """The state after one trial, all of whose pairs are used: a trial that raises the alarm is no recovery."""
        xs = tuple(observations)
        if state.alerted:
            return self._step_alerted(state, winner(xs)), len(xs)
        watched, _ = self._scanned(state, *self.trials.scan(state.alarm, xs))
        return watched, len(xs)

    def step_zeros(self, state: Watched, observations: int, trials: int = 1) -> tuple[Watched, int]:
        """As that many `scan`s of as many ties, bit for bit, but in no time after many of them."""
        ties = (0.0,) * observations
        for done in range(1, trials + 1):
            before = state
            state, _ = self.scan(before, ties)
            if not before.alerted and state.alarm.values == before.alarm.values:
                # At rest: one more such trial changes no bit of it.
                rest = Wealth(state.alarm.steps + trials - done, state.alarm.values)
                return Watched(state.alerted, state.weak, rest, state.recovery), observations * trials
        return state, observations * trials


def winner(differences: Iterable[float]) -> float:
    """1 if churn halves have more in all, 0 if quiet halves have, 1/2 for a tie.

    A difference is clipped, so a single busy half does not decide.
    """
    total = 0.0
    for difference in differences:
        total += min(max(difference, -LARGEST_DIFFERENCE), LARGEST_DIFFERENCE)
    return 1.0 if total > 0.0 else 0.0 if total < 0.0 else 0.5
