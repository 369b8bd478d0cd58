"""E-processes: evidence since a start, with a mean of at most 1 under the null at any stopping time.

One for a single run, and one for pooling over a fleet, which begins with an epoch that is common to all nodes.
"""

from collections.abc import Sequence

from kickwatch.detect.wager import NOTHING, Bets, Wager, Wealth


class EProcess:
    """Evidence against the null since the first observation: starts at 1, has a mean of at most 1 at any stopping time.

    The probability that it ever reaches 1/alpha under the null is at most alpha (Ville).
    """

    def __init__(self, wager: Wager) -> None:
        """Bet with `wager`, all the money from the start."""
        self.wager = wager

    def start(self) -> Wealth:
        """One unit, shared."""
        return Wealth(0, self.wager.stakes)

    def step(self, wealth: Wealth, x: float) -> Wealth:
        """The wealth after one more observation."""
        return self.wager.step(wealth, x)


# The latest silence by bets: where it began, how long it was, where it ended.
_SILENCE: dict[Bets, tuple[tuple[Wealth, int], Wealth]] = {}


class EpochEProcess:
    """Evidence since an epoch common to many nodes, for pooling: the mean of e-values is an e-value.

    The unit is not staked at once, which years of health would ruin, but in portions of 1 / (t * (t + 1)) before
    observation t; they sum to 1, and what is not yet staked counts as it is. A change after t observations
    therefore costs a factor of about t**2, not everything.
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
        t = wealth.steps + 1
        p = float(t * (t + 1))
        a, b, c, d, e, f, g, h, i = self.wager.stakes
        return self.wager.step(wealth, x, (a / p, b / p, c / p, d / p, e / p, f / p, g / p, h / p, i / p))

    def step_mean(self, wealth: Wealth, observations: Sequence[float]) -> Wealth:
        """One step with the mean of several clipped observations: the null bounds it as it bounds each of them."""
        clip, total = self.wager.null.clip, 0.0
        for x in observations:
            total += min(x, clip)
        return self.step(wealth, total / len(observations))

    def silence(self, wealth: Wealth, steps: int) -> Wealth:
        """So many steps with 0. Silence costs a bet the same against any null, so streams that were equally long silent
        take them together."""
        known = _SILENCE.get(self.wager.bets)
        if known is None or known[0] != (wealth, steps):
            after = wealth
            for _ in range(steps):
                after = self.step(after, 0.0)
            known = _SILENCE[self.wager.bets] = ((wealth, steps), after)
        return known[1]

    def published(self, wealth: Wealth) -> float:
        """The e-value, linear, at most `cap`: what is staked and what is not."""
        staked = wealth.total().capped(self.cap)
        return min(staked + 1.0 / (wealth.steps + 1), self.cap)
