"""E-processes: evidence since a start, whose mean under the null is at most 1 at any stopping time.

One is for a single run; the other is for pooling over a fleet, and begins with an epoch that all nodes share.
"""

from kickwatch.detect.wager import NOTHING, Bets, Nine, Wager, Wealth


class EProcess:
    """Evidence against the null since the first observation; it starts at 1.

    Under the null it reaches 1/alpha at some time with a probability of at most alpha (Ville).
    """

    def __init__(self, wager: Wager) -> None:
        """Bet with `wager`, with all the money from the start."""
        self.wager = wager

    def start(self) -> Wealth:
        """One unit, shared."""
        return Wealth(0, self.wager.stakes)

    def step(self, wealth: Wealth, x: float) -> Wealth:
        """The wealth after one more observation."""
        return self.wager.step(wealth, x)


# The latest run of zeros by bets: where it began, how many trials of how many zeros it had, where it ended.
_LATEST_ZEROS: dict[Bets, tuple[tuple[Wealth, int, int], Wealth]] = {}


class EpochEProcess:
    """Evidence since an epoch that many nodes share, for pooling: the mean of e-values is an e-value.

    The unit is not staked at once: years of health would ruin it. It is staked in portions of 1 / (t * (t + 1)) before
    trial t. They sum to 1, and the part that is not staked yet counts as it is. A change after t trials
    therefore costs a factor of about t**2, and not everything.
    """

    def __init__(self, wager: Wager, cap: float = 1e15) -> None:
        """`cap` bounds what is published: the minimum of an e-value and a constant is an e-value."""
        self.wager = wager
        self.cap = cap

    def start(self) -> Wealth:
        """Nothing staked yet."""
        return Wealth(0, NOTHING)

    def step(self, wealth: Wealth, x: float) -> Wealth:
        """The staked part of the wealth after one more observation."""
        return self.wager.step(wealth, x, self._portion(wealth.steps + 1))

    def _portion(self, t: int) -> Nine:
        """What is staked before observation t."""
        p = float(t * (t + 1))
        a, b, c, d, e, f, g, h, i = self.wager.stakes
        return a / p, b / p, c / p, d / p, e / p, f / p, g / p, h / p, i / p

    def step_trial(self, wealth: Wealth, observations: tuple[float, ...]) -> Wealth:
        """The staked part of the wealth after one more trial: a portion for the trial, a bet on each observation."""
        return self.wager.step_trial(wealth, observations, self._portion(wealth.steps + 1))

    def step_zeros(self, wealth: Wealth, steps: int, zeros: int = 1) -> Wealth:
        """`steps` trials with as many observations of 0 each as `zeros`."""
        return self._step_alike(wealth, steps, (0.0,) * zeros)

    def _step_alike(self, wealth: Wealth, steps: int, zeros: tuple[float, ...]) -> Wealth:
        """That many trials with these zeros.

        A zero costs a bet the same against any null, so streams that had equally many trials of zeros share the result.
        """
        known, run = _LATEST_ZEROS.get(self.wager.bets), (wealth, steps, len(zeros))
        if known is None or known[0] != run:
            after = wealth
            for _ in range(steps):
                after = self.step_trial(after, zeros)
            known = _LATEST_ZEROS[self.wager.bets] = (run, after)
        return known[1]

    def published(self, wealth: Wealth) -> float:
        """The e-value, linear, at most `cap`: the staked part and the rest."""
        staked = wealth.total().capped(self.cap)
        return min(staked + 1.0 / (wealth.steps + 1), self.cap)
