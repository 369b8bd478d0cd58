"""E-detectors: has the mean risen above its allowance, at whatever time?

The sum, over every possible time of the change, of the e-process that starts there (the Shiryaev-Roberts form of Shin,
Ramdas and Rinaldo, arXiv 2203.03532). One unit is staked before each observation, so under the null the sum R after
n observations minus n is a supermartingale; hence, without any assumption of independence,

- the mean number of observations until R reaches the threshold A is at least A, and
- the probability that it does so within n observations is at most n / A.

`step` is pure. The state is everything: saved and restored, it continues bit for bit.
"""

from collections.abc import Iterable

from kickwatch.detect.scaled import Scaled
from kickwatch.detect.wager import NOTHING, Nine, Wager, Wealth, play


class EDetector:
    """Watches one stream, without end. `threshold`: the least mean number of observations to a false alarm."""

    def __init__(self, wager: Wager, threshold: float) -> None:
        """Raise ValueError for a threshold that is not between 1 and 2**500."""
        if not 1.0 <= threshold <= 2.0**500:
            raise ValueError(f"a threshold is a number of observations from 1 to 2**500, not {threshold}")
        self.wager = wager
        self.threshold = threshold
        self._at_rest: Nine | None = None  # what many zeros leave: one more zero changes no bit of it
        # Zeros draw each sum to stake * keep / (1 - keep): no sum exceeds that, or what it was before.
        at_rest = (stake * keep / (1.0 - keep) for stake, keep in zip(wager.stakes, wager.factors(0.0), strict=True))
        self._most_at_rest = 1.0 + sum(at_rest)

    def start(self) -> Wealth:
        """No observation, no evidence."""
        return Wealth(0, NOTHING)

    def step(self, wealth: Wealth, x: float) -> Wealth:
        """The state after one more observation: at least 0, and clipped here."""
        return self.wager.step(wealth, x, self.wager.stakes)

    def evidence(self, wealth: Wealth) -> Scaled:
        """The sum R, to be compared with the threshold."""
        return wealth.total()

    def alarmed(self, wealth: Wealth) -> bool:
        """Whether the evidence has reached the threshold."""
        return wealth.reaches(self.threshold)

    def scan(self, wealth: Wealth, observations: Iterable[float]) -> tuple[Wealth, bool]:
        """Step through observations until the alarm or their end; True at an alarm. Equal to `step`, bit for bit."""
        if wealth.exponents:
            raise ValueError("this detector has run far beyond its threshold: start it again")
        rows = map(self.wager.factors, observations)
        values, total, used = play(wealth.values, self.wager.stakes, rows, self.threshold)
        return Wealth(wealth.steps + used, values), total >= self.threshold

    def step_zeros(self, wealth: Wealth, observations: int) -> tuple[Wealth, bool]:
        """As `scan` of that many zeros, bit for bit, but in no time after many of them.

        The nine sums do not mix, so each is stepped by itself, until one more zero changes no bit of it.
        """
        if wealth.values == self._at_rest and not wealth.exponents:
            return Wealth(wealth.steps + observations, wealth.values), False
        if wealth.exponents or not sum(wealth.values) + self._most_at_rest < self.threshold:
            return self.scan(wealth, [0.0] * observations)  # an alarm may come among them
        keeps = self.wager.factors(0.0)
        a, b, c, d, e, f, g, h, i = (
            _fade(value, stake, keep, observations)
            for value, stake, keep in zip(wealth.values, self.wager.stakes, keeps, strict=True)
        )
        faded = (a, b, c, d, e, f, g, h, i)
        if faded == wealth.values and observations:
            self._at_rest = faded
        return Wealth(wealth.steps + observations, faded), False


def _fade(value: float, stake: float, keep: float, observations: int) -> float:
    """A bet's sum after that many zeros."""
    for _ in range(observations):
        before, value = value, (value + stake) * keep
        if value == before:
            break
    return value
