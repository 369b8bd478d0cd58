"""Which bank of a request probe is in use, and the sum of both: exact figures, though other CPUs go on counting."""

from collections.abc import Callable
from contextlib import suppress
from operator import add

from kickwatch.errors import ObserveError
from kickwatch.observe.request_cells import Totals
from kickwatch.observe.request_maps import BankFigures

_ATTEMPTS = 20


class Banks:
    """The bank in use, and what each bank had when it was last at rest.

    At each reading the other bank comes into use. Then the figures of the one that rests are read, and those of the
    other are known from the reading before, since it has rested from then until now.
    """

    def __init__(self) -> None:
        self.in_use = 0
        self._rested = [BankFigures(), BankFigures()]
        self._excess = [0, 0]  # what could not be settled

    def turn(self, configure: Callable[[], None], read: Callable[[int], BankFigures]) -> BankFigures:
        """Use the other bank from now on, and return everything that was counted until now.

        `configure` tells the probe which bank is in use; `read` reads one. A program that had begun before may still
        run: then a request is counted in part, and the bank is read again. Raises ObserveError.
        """
        resting = self.in_use
        try:
            self.in_use = 1 - resting
            configure()
            self._rested[resting] = self._consistent(resting, read)
        except BaseException:
            self.in_use = resting  # or what it counted since its last reading would be missing from the next one
            with suppress(ObserveError):
                configure()
            raise
        return _sum(*self._rested)

    def _consistent(self, bank: int, read: Callable[[int], BankFigures]) -> BankFigures:
        figures = read(bank)
        for _ in range(_ATTEMPTS):
            if figures.excess == self._excess[bank]:
                return figures
            figures = read(bank)  # takes longer than any program that is not interrupted
        self._excess[bank] = figures.excess  # no running program: the next reading will not settle it, either
        return figures

    def forget(self) -> None:
        """The maps were emptied."""
        self._rested = [BankFigures(), BankFigures()]
        self._excess = [0, 0]


def _sum(one: BankFigures, other: BankFigures) -> BankFigures:
    totals = dict(one.totals)
    for key, more in other.totals.items():
        known = totals.get(key)
        totals[key] = more if known is None else Totals(*map(add, known, more))
    hits = dict(one.hits)
    for hit, requests in other.hits.items():
        hits[hit] = hits.get(hit, 0) + requests
    targets = list(map(add, one.targets, other.targets)) if one.targets and other.targets else None
    return BankFigures(totals, targets or one.targets or other.targets, one.unplaced + other.unplaced, hits)
