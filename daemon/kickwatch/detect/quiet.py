"""When the daemon may say `quiet`: not without having looked, and seen containers that caused no broadcast. Pure.

`quiet` says that the creation path does not broadcast, and that takes evidence. It is the same e-process as that of
`kickwatch trial`, against "at least one container in three broadcasts", over the containers since the evidence began
(at a boot, at another stratum, after an alarm). When it has reached 1/alpha (after 23 containers without a broadcast),
quiet is established; from then on the alarms watch over it. It has to be established again after a trial that raised
some stream's evidence well above rest, if an alarm of that stream would end `quiet`. And it does not count while

- such evidence is very high;
- the latest containers came with at least 0.5 broadcasts each from elsewhere;
- the containers of the last two trials nearly all failed.
"""

import msgspec
from msgspec.structs import replace

from kickwatch.detect.eprocess import EProcess
from kickwatch.detect.lives import Churned
from kickwatch.detect.oneshot import ALPHA, FAULTY_SHARE, MOST_MORE, NONE_AT_ALL, quiet_observations
from kickwatch.detect.verdict import BROADCASTS_PER_CONTAINER
from kickwatch.detect.wager import Null, SavedWealth, StaleStateError, Wager, Wealth

FAILED_TRIALS = 2  # in a row, before the condition says so; the same number of void trials
FRESH_CONTAINERS = 23  # without a broadcast, they establish quiet from a start
RECENT_CONTAINERS = 23  # over which broadcasts elsewhere are summed: small trials are mostly noise

# Evidence well above rest. At rest a stream's is about 5; a container with one broadcast makes it 24, with two 45, with
# three or a window full of them 85.
SUSPICIOUS = 48.0
SUSPICIOUS_COIN = 1000.0  # nine wins in a row: of fair coins, one trial in a thousand
STANDING = 1e4  # the error rate of `quiet` itself

Excess = tuple[float, int]  # broadcasts elsewhere above the quiet window's, and the containers they came with


class QuietEvidence(msgspec.Struct, frozen=True):
    """What is known. `wealth` is None before the first container; `failed`, `void`: such trials in a row."""

    wealth: Wealth | None = None
    established: bool = False
    failed: int = 0
    recent: tuple[Excess, ...] = ()
    void: int = 0

    @property
    def elsewhere(self) -> bool:
        """Whether the latest containers come with broadcasts from elsewhere."""
        above, containers = sum([excess for excess, _ in self.recent]), sum([count for _, count in self.recent])
        return above > 0.0 and above >= BROADCASTS_PER_CONTAINER * containers


class SavedQuietEvidence(msgspec.Struct, frozen=True):
    """QuietEvidence as it is written to disk."""

    wealth: SavedWealth | None
    established: bool
    failed: int
    recent: tuple[tuple[str, int], ...]
    void: int = 0


class QuietTest:
    """Steps QuietEvidence."""

    def __init__(self) -> None:
        """The test of one run, which the daemon continues until it has decided."""
        self._process = EProcess(Wager(Null(1.0 - FAULTY_SHARE, 1.0), NONE_AT_ALL))
        self._needed = 1.0 / ALPHA

    def step(self, known: QuietEvidence, churned: Churned) -> QuietEvidence:
        """After the containers of one trial that can be trusted."""
        if known.established:
            return known
        wealth = known.wealth or self._process.start()
        for x in quiet_observations(churned):
            wealth = self._process.step(wealth, x)
        return replace(known, wealth=wealth, established=wealth.reaches(self._needed))

    def restarted(self, known: QuietEvidence) -> QuietEvidence:
        """After an alarm, or evidence well above rest: the containers before it prove nothing any more."""
        return replace(known, wealth=None, established=False)

    def needs(self, known: QuietEvidence) -> int | None:
        """How many more containers without a broadcast establish quiet; None where more than 10,000 would."""
        if known.established:
            return 0
        wealth = known.wealth or self._process.start()
        for more in range(1, MOST_MORE + 1):
            wealth = self._process.step(wealth, 1.0)
            if wealth.reaches(self._needed):
                return more
        return None

    def save(self, known: QuietEvidence) -> SavedQuietEvidence:
        """In a form that JSON keeps to the last bit."""
        wealth = self._process.wager.save(known.wealth) if known.wealth is not None else None
        recent = tuple((excess.hex(), containers) for excess, containers in known.recent)
        return SavedQuietEvidence(wealth, known.established, known.failed, recent, known.void)

    def restore(self, saved: SavedQuietEvidence) -> QuietEvidence:
        """The inverse of `save`. If it was saved under other bets, quiet has to be established again."""
        recent = tuple((float.fromhex(excess), containers) for excess, containers in saved.recent)
        try:
            wealth = self._process.wager.restore(saved.wealth) if saved.wealth is not None else None
        except StaleStateError:
            return QuietEvidence(failed=saved.failed, recent=recent, void=saved.void)
        return QuietEvidence(wealth, saved.established, saved.failed, recent, saved.void)


def with_recent(known: QuietEvidence, excess: float, containers: int) -> QuietEvidence:
    """With one more trial among the latest."""
    recent = (*known.recent, (excess, containers))
    total = sum([count for _, count in recent])
    while len(recent) > 1 and total - recent[0][1] >= RECENT_CONTAINERS:
        total -= recent[0][1]
        recent = recent[1:]
    return known if recent == known.recent else replace(known, recent=recent)
