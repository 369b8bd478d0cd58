"""`kickwatch trial`: one verdict, with an error rate of its own on either side.

- `broadcasting`: evidence against "the mean is at most the allowance" reaches 1/alpha;
- `quiet`: evidence against "at least one container in three broadcasts" reaches 1/alpha.

Both are e-processes, so looking after every container costs nothing, and `--until-decided` may go on for as long as it
likes: each wrong verdict has a probability of at most alpha (Ville's inequality). The first to get there decides.

Why one in three: that 23 silent containers suffice at alpha 1e-4 allows no more, (2/3)**23 = 0.9e-4. Half a
broadcast per container is covered in any ordinary shape (0, 1, 0, 1...; Poisson, where 39 % of the containers
have one), not as a burst in fewer than a third of them.

The canary, if the run has one, is a second stake placed before the start: half of the money bets on the containers,
half on the batches, and the mean of two e-values is an e-value however they depend on each other.
"""

import msgspec

from kickwatch.detect.eprocess import Bets, EProcess, Null, Wager, Wealth
from kickwatch.detect.rates import CREATION_PATH, Allowance
from kickwatch.detect.scaled import Scaled
from kickwatch.model import Verdict

ALPHA = 1e-4
FAULTY_SHARE = 1.0 / 3.0
MOST_MORE = 10_000  # containers: beyond it "more" would be no advice

# 29/32 of the money is on "none at all": it decides 23 silent containers, 1.5**23 * 29/32 = 1.02e4.
SILENCE = Bets(parts=(64, 58, 52, 46, 40, 32, 24, 16, 8), shares=(232, 3, 3, 3, 3, 3, 3, 3, 3))


class Run(msgspec.Struct, frozen=True):
    """One run so far. The verdict stays once it is not `unknown`."""

    verdict: Verdict
    broadcasting: Wealth
    quiet: Wealth
    canary: Wealth | None
    containers: tuple[float, ...] = ()  # broadcasts of each, as observed


class OneShot:
    """The two tests of one run; the state is handed in and out."""

    def __init__(
        self, alpha: float = ALPHA, allowance: Allowance = CREATION_PATH, canary: Allowance | None = None
    ) -> None:
        """`alpha` is the probability of a wrong verdict on each side; `canary` the allowance of its batches, if any."""
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"an error rate lies between 0 and 1, not {alpha}")
        self.evidence_needed = 1.0 / alpha
        self._loud = EProcess(Wager(Null(allowance.mean, allowance.clip)))
        self._silent = EProcess(Wager(Null(1.0 - FAULTY_SHARE, 1.0), SILENCE))
        self._canary = EProcess(Wager(Null(canary.mean, canary.clip))) if canary else None

    def start(self) -> Run:
        """Nothing observed."""
        canary = self._canary.start() if self._canary else None
        return Run(Verdict.UNKNOWN, self._loud.start(), self._silent.start(), canary)

    def container(self, run: Run, broadcasts: float) -> Run:
        """The run after one more container (or burst: then broadcasts per container in it)."""
        loud = self._loud.step(run.broadcasting, broadcasts)
        silent = self._silent.step(run.quiet, 1.0 - min(broadcasts, 1.0))
        return self._judge(Run(run.verdict, loud, silent, run.canary, (*run.containers, broadcasts)))

    def canary(self, run: Run, observation: float) -> Run:
        """The run after one more canary batch. Raises ValueError if the run was begun without a canary."""
        if self._canary is None or run.canary is None:
            raise ValueError("a canary must be staked on before the run: its allowance is missing")
        canary = self._canary.step(run.canary, observation)
        return self._judge(Run(run.verdict, run.broadcasting, run.quiet, canary, run.containers))

    def evidence(self, run: Run) -> tuple[Scaled, Scaled]:
        """The evidence for `broadcasting` (containers and canary together) and for `quiet`."""
        loud = run.broadcasting.total()
        if run.canary is not None:
            loud = loud.mean_with(run.canary.total())
        return loud, run.quiet.total()

    def needs(self, run: Run) -> int | None:
        """How many more containers decide if they go on as so far, silent if none was seen; None if that is no way."""
        if run.verdict is not Verdict.UNKNOWN:
            return 0
        pattern = run.containers or (0.0,)
        for more in range(MOST_MORE):
            run = self.container(msgspec.structs.replace(run, containers=()), pattern[more % len(pattern)])
            if run.verdict is not Verdict.UNKNOWN:
                return more + 1
        return None

    def _judge(self, run: Run) -> Run:
        if run.verdict is not Verdict.UNKNOWN:
            return run
        if self.evidence(run)[0].reaches(self.evidence_needed):
            return msgspec.structs.replace(run, verdict=Verdict.BROADCASTING)
        if run.quiet.reaches(self.evidence_needed):
            return msgspec.structs.replace(run, verdict=Verdict.QUIET)
        return run
