"""E-detectors: has the mean risen above what is allowed, at whatever time?

The sum, over every possible time of the change, of the e-process that starts there (the Shiryaev-Roberts form of Shin,
Ramdas and Rinaldo, arXiv 2203.03532). One unit is staked before each observation, so under the null the sum R after
n observations minus n is a supermartingale; hence, without any assumption of independence,

- the mean number of observations until R reaches the threshold A is at least A, and
- the probability that it does so within n observations is at most n / A.

`step` is pure; the state is everything, and a state saved and restored goes on bit for bit.
"""

from collections.abc import Iterable

from kickwatch.detect.scaled import Scaled
from kickwatch.detect.wager import NOTHING, Nine, Wager, Wealth, play


class EDetector:
    """Watches one stream for ever. `threshold` is the least mean number of observations to a false alarm."""

    def __init__(self, wager: Wager, threshold: float) -> None:
        """Raise ValueError for a threshold that is not between 1 and 2**500."""
        if not 1.0 <= threshold <= 2.0**500:
            raise ValueError(f"a threshold is a number of observations from 1 to 2**500, not {threshold}")
        self.wager = wager
        self.threshold = threshold
        self._at_rest: Nine | None = None  # what long silence leaves: one more zero changes no bit of it
        # Silence draws each sum to stake * keep / (1 - keep): no sum exceeds what it was, or that.
        at_rest = (stake * keep / (1.0 - keep) for stake, keep in zip(wager.stakes, wager.factors(0.0), strict=True))
        self._most_at_rest = 1.0 + sum(at_rest)

    def start(self) -> Wealth:
        """No observation, no evidence."""
        return Wealth(0, NOTHING)

    def step(self, wealth: Wealth, x: float) -> Wealth:
        """The state after one more observation, which is at least 0 and is clipped here."""
        return self.wager.step(wealth, x, self.wager.stakes)

    def evidence(self, wealth: Wealth) -> Scaled:
        """The sum R, to be compared with the threshold."""
        return wealth.total()

    def alarmed(self, wealth: Wealth) -> bool:
        """Whether the evidence has reached the threshold."""
        return wealth.reaches(self.threshold)

    def scan(self, wealth: Wealth, observations: Iterable[float]) -> tuple[Wealth, bool]:
        """Step through observations until the alarm or their end; whether it was the alarm. `step`, bit for bit."""
        if wealth.exponents:
            raise ValueError("this detector has run on far beyond its threshold: start it anew")
        rows = map(self.wager.factors, observations)
        values, total, used = play(wealth.values, self.wager.stakes, rows, self.threshold)
        return Wealth(wealth.steps + used, values), total >= self.threshold

    def silence(self, wealth: Wealth, observations: int) -> tuple[Wealth, bool]:
        """As `scan` of so many zeros, bit for bit, but in no time once silence has lasted.

        The nine sums never meet, so each is carried on alone, until a zero changes no bit of it any more.
        """
        if wealth.values == self._at_rest and not wealth.exponents:
            return Wealth(wealth.steps + observations, wealth.values), False
        if wealth.exponents or not sum(wealth.values) + self._most_at_rest < self.threshold:
            return self.scan(wealth, [0.0] * observations)  # the alarm may come in between
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
    """What a bet's sum is after so many zeros."""
    for _ in range(observations):
        before, value = value, (value + stake) * keep
        if value == before:
            break
    return value
