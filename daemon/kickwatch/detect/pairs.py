"""Do containers make a difference? Bets on the pairs of a trial: a half with a container beside a half without. Pure.

A coin decides which half of a pair comes first, after their length was fixed, and both halves are read at their planned
ends. The labels follow the coin and not the container. So if the container makes no difference, churn minus quiet has
either sign with the same probability, given its size and everything before: whatever the background does (bursts,
drift, work left over from the half before, a load that follows ours), and however long the container lives.

A healthy container does make a difference now and then: the kernel purges mappings, or flips a static key that nothing
else holds. The null therefore allows it for one container in 20, with any sign and size. Of a bet with the fraction c
of the money,

    (1 + f(d)) / (1 + m * f(K)),    f(d) = sign(d) * (1 - r**|d|) / (1 + r**|d|),    r = (1 - c) / (1 + c)

is the factor for a difference d, clipped at K = 3. The coin makes the mean of 1 + f(d) at most 1, and the share m of
containers that make a difference adds at most m * f(K). So the mean of the factor is at most 1, in or below the null.
f(1) = c; f is a hyperbolic tangent, which is how the odds of a difference grow with its size if broadcasts come by the
law of Poisson. A pair without a difference costs the divisor.

- *A pair that was outlasted* may lose or tie, but not win. A container that lives longer than its half leaves a part of
  its life in the other half. That only blurs a fault, but were the pair left out, the choice would follow the
  container: if lives are slow in calm times, the halves with a container that remain are the busy ones. To set a win
  to a tie can only lower a factor, whatever it depends on, so the mean stays at most 1.
- *A burst* of n containers is one pair, and each of its further containers counts as a tie. It makes a difference with
  a probability of at most n * m, and (1 + m * f(K))**n is at least 1 + n * m * f(K).
"""

from collections.abc import Callable, Iterable

from kickwatch.detect.wager import (
    PART,
    ROUNDING_GUARD,
    Bets,
    Nine,
    Null,
    Wager,
    nine,
)
from kickwatch.model import HalfFigures, Pair

Figure = Callable[[HalfFigures], int | None]

DIFFERENT_SHARE = 0.05  # m: of healthy containers, at most
LARGEST_DIFFERENCE = 3  # K: larger ones count as this
# Chosen by measuring delays from Poisson(0.5) to 6 broadcasts per container beside backgrounds of up to 3 per half
# (docs/detection.md).
PAIR_BETS = Bets(parts=(63, 58, 48, 36, 26, 18, 12, 7, 3), shares=(64, 48, 32, 32, 32, 16, 16, 8, 8))


def differences(pairs: Iterable[Pair], figure: Figure) -> tuple[float, ...]:
    """Churn minus quiet of each pair in which both are known, then a tie for each further container of a burst."""
    found: list[float] = []
    ties = 0
    for pair in pairs:
        churn, quiet = figure(pair.churn), figure(pair.quiet)
        if churn is None or quiet is None:
            continue
        difference = float(churn - quiet)
        found.append(min(difference, 0.0) if pair.outlasted else difference)
        ties += max(pair.containers - 1, 0)
    return (*found, *(0.0,) * ties)


def clipped_excess(pairs: Iterable[Pair], figure: Figure) -> tuple[float, int] | None:
    """How much more churn halves have than quiet halves, and how much churn halves have; None if a half is not known.

    A difference is clipped at that of a burst in which each container makes the largest one that counts. So a few
    halves in which something else was busy do not look like something that comes with each container.
    """
    excess, in_churn, known = 0.0, 0, False
    for pair in pairs:
        churn, quiet = figure(pair.churn), figure(pair.quiet)
        if churn is None or quiet is None:
            return None
        most = LARGEST_DIFFERENCE * max(pair.containers, 1)
        excess += min(max(churn - quiet, -most), most)
        in_churn, known = in_churn + churn, True
    return (excess, in_churn) if known else None


class PairWager(Wager):
    """Nine bets that containers make a difference more often than `allowed`. An observation is a difference."""

    def __init__(self, allowed: float = DIFFERENT_SHARE, bets: Bets = PAIR_BETS) -> None:
        """`allowed`: the share of healthy containers that make a difference; above 0 and below 1."""
        super().__init__(Null(mean=allowed, clip=1.0), bets)

    @property
    def key(self) -> str:
        """As of any wager, and it cannot be taken for one on a mean."""
        return f"pairs {LARGEST_DIFFERENCE} {super().key}"

    def _computed(self, x: float) -> Nine:
        """Only + - * and / in a fixed order: a power is not the same to the last bit with every C library."""
        size = min(abs(x), float(LARGEST_DIFFERENCE))
        if size != int(size):
            raise ValueError(f"a difference of counts is a whole number; it is {x}")
        return nine(self._factor(part / PART, int(size), wins=x > 0.0) for part in self.bets.parts)

    def _factor(self, stake: float, size: int, *, wins: bool) -> float:
        pull = _pull(stake, size)
        won = 1.0 + pull if wins else 1.0 - pull
        return won / (1.0 + self.null.mean * _pull(stake, LARGEST_DIFFERENCE)) * ROUNDING_GUARD


def _pull(stake: float, size: int) -> float:
    """f(size) for size >= 0: from 0 to 1, the stake itself for 1."""
    ratio, odds = (1.0 - stake) / (1.0 + stake), 1.0
    for _ in range(size):
        odds *= ratio
    return (1.0 - odds) / (1.0 + odds)
