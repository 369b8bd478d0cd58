"""Do broadcasts that no stack explains come with churn? A test by swapping the windows' labels.

A coin decides the order of a trial's churn window and its quiet window. If containers have nothing to do with the
broadcasts, the window with more of them is the churn window with probability 1/2, given everything before, whatever the
background does (day and night, drift, bursts that last for hours): the sign of the difference is a fair coin.
A trial is worth one bit at most, so a threshold of 5.3e8 takes at least 29 trials. Equal windows are no toss.

It assumes that the windows are equally long, that only the coin decides their order, and that the containers of one
window leave nothing behind for the other: the settle time belongs to the churn window.
"""

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Ceiling, Hysteresis, Watched
from kickwatch.detect.wager import Bets, Null, Wager

# Half the money bets everything on churn, which finds a broadcast that comes with every churn window in the fewest
# trials that the threshold allows. The rest is for a broadcast that a busy background sometimes hides.
ALL_OR_SOME = Bets(parts=(64, 60, 56, 50, 44, 36, 28, 18, 8), shares=(128, 16, 16, 16, 16, 16, 16, 16, 16))
FAIR_COIN = Wager(Null(mean=0.5, clip=1.0), ALL_OR_SOME)

# Of trials that churn wins; a tie is half a win. With a fault churn wins nearly all of them, without one half of them.
PLAIN = Ceiling(0.75, 1.0)
WEAK = Ceiling(0.6, 1.0)


class SwapTest:
    """Watches the signs of churn minus quiet, without end."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: the least mean number of unequal trials to a false alarm."""
        self.hysteresis = Hysteresis(EDetector(FAIR_COIN, threshold), PLAIN, WEAK)

    def start(self) -> Watched:
        """No trial yet."""
        return self.hysteresis.start()

    def step(self, state: Watched, churn: float, quiet: float) -> Watched:
        """The state after a trial with that many broadcasts in its two windows. Raises ValueError for NaN."""
        if churn > quiet:
            return self.hysteresis.step(state, 1.0)
        if churn < quiet:
            return self.hysteresis.step(state, 0.0)
        if churn != quiet:
            raise ValueError(f"windows that cannot be compared: {churn} and {quiet}")
        # A tie is no toss and no evidence of a fault; once there was one, it is a sign that the fault may have gone.
        return self.hysteresis.step(state, 0.5) if state.alerted else state
