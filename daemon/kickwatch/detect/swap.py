"""Do broadcasts that no stack explains come with churn? A test by swapping the windows' labels.

A trial tosses a coin for the order of its churn and its quiet window. If containers have nothing to do with the
broadcasts, then, whatever the background does (day and night, drift, bursts that last for hours), the window with more
of them is the churn window with probability 1/2, given everything before: the sign of the difference is a fair coin.
A trial is worth one bit at most, so a threshold of 5.3e8 takes at least 29 trials. Equal windows are no toss.

Assumes windows of equal length whose order the coin alone decided, and that a window's containers leave nothing behind
for the other: the settle time belongs to the churn window.
"""

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Ceiling, Hysteresis, Watched
from kickwatch.detect.wager import Bets, Null, Wager

# Half the money bets all on churn: a broadcast that comes with every churn window is found in the fewest trials that
# the threshold allows. The rest is for one that a busy background sometimes hides.
ALL_OR_SOME = Bets(parts=(64, 60, 56, 50, 44, 36, 28, 18, 8), shares=(128, 16, 16, 16, 16, 16, 16, 16, 16))
FAIR_COIN = Wager(Null(mean=0.5, clip=1.0), ALL_OR_SOME)

# Of trials won by churn; a tie is half a win. A fault that comes with churn wins nearly all, none half of them.
PLAIN = Ceiling(0.75, 1.0)
WEAK = Ceiling(0.6, 1.0)


class SwapTest:
    """Watches the signs of churn minus quiet for ever."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: the least mean number of unequal trials to a false alarm."""
        self.hysteresis = Hysteresis(EDetector(FAIR_COIN, threshold), PLAIN, WEAK)

    def start(self) -> Watched:
        """No trial yet."""
        return self.hysteresis.start()

    def step(self, state: Watched, churn: float, quiet: float) -> Watched:
        """The state after a trial with so many unexplained broadcasts in its windows. Raises ValueError for NaN."""
        if churn > quiet:
            return self.hysteresis.step(state, 1.0)
        if churn < quiet:
            return self.hysteresis.step(state, 0.0)
        if churn != quiet:
            raise ValueError(f"windows that cannot be compared: {churn} and {quiet}")
        # No toss, hence no evidence of a fault; once there was one, a tie tells that it may have gone.
        return self.hysteresis.step(state, 0.5) if state.alerted else state
