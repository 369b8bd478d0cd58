"""`kickwatch trial`: one verdict, with an error rate of its own on either side.

- `broadcasting`: evidence against "the mean is at most the allowance" reaches 1/alpha;
- `quiet`: evidence against "at least one container in three broadcasts" reaches 1/alpha.

Both are e-processes, so looking after every container costs nothing, and `--until-decided` may go on for as long as it
likes: each wrong verdict has a probability of at most alpha (Ville's inequality). The first to get there decides.

Why one in three: that 23 silent containers suffice at alpha 1e-4 allows no more, (2/3)**23 = 0.9e-4. Half a
broadcast per container is covered in any ordinary shape (0, 1, 0, 1...; Poisson, where 39 % of the containers
have one), not as a burst in fewer than a third of them.

The signature and the canary, if the run has them, are stakes of their own placed before the start: the mean of e-values
is an e-value however they depend on each other. With all three half of the money bets on the signature, whose one
observation a trial must be able to decide (slab caches made by a kworker after the last container had gone: 32 kicks
for each), and a quarter each on the containers and on the batches.

Broadcasts that lie in no single container's life count as a burst: one observation against the allowance, and against
silence as many containers as they could have come from, since the product of the wagers cannot be smaller than that.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle

import msgspec
from msgspec.structs import replace

from kickwatch.detect.eprocess import EProcess
from kickwatch.detect.lives import Churned
from kickwatch.detect.scaled import Scaled
from kickwatch.detect.streams import CREATION_PATH, Allowance
from kickwatch.detect.wager import Bets, Null, Wager, Wealth
from kickwatch.model import Verdict

ALPHA = 1e-4
FAULTY_SHARE = 1.0 / 3.0
MOST_MORE = 10_000  # containers: beyond it "more" would be no advice

# 29/32 of the money is on "none at all": it decides 23 silent containers, 1.5**23 * 29/32 = 1.02e4.
SILENCE = Bets(parts=(64, 58, 52, 46, 40, 32, 24, 16, 8), shares=(232, 3, 3, 3, 3, 3, 3, 3, 3))


# A signature needs one observation: 29/32 of its money is on "all at once".
AT_ONCE = SILENCE


class Run(msgspec.Struct, frozen=True):
    """One run so far. The verdict stays once it is not `unknown`."""

    verdict: Verdict
    broadcasting: Wealth
    quiet: Wealth
    canary: Wealth | None
    signature: Wealth | None
    seen: tuple[Churned, ...] = ()


class OneShot:
    """The two tests of one run; the state is handed in and out."""

    def __init__(
        self,
        alpha: float = ALPHA,
        allowance: Allowance = CREATION_PATH,
        canary: Allowance | None = None,
        signature: Allowance | None = None,
    ) -> None:
        """`alpha`: the probability of a wrong verdict on each side; `canary`, `signature`: allowances, if staked on."""
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"an error rate lies between 0 and 1, not {alpha}")
        self.evidence_needed = 1.0 / alpha
        self._loud = EProcess(Wager(Null(allowance.mean, allowance.clip)))
        self._silent = EProcess(Wager(Null(1.0 - FAULTY_SHARE, 1.0), SILENCE))
        self._canary = EProcess(Wager(Null(canary.mean, canary.clip))) if canary else None
        self._signature = EProcess(Wager(Null(signature.mean, signature.clip), AT_ONCE)) if signature else None

    def start(self) -> Run:
        """Nothing observed."""
        canary = self._canary.start() if self._canary else None
        signature = self._signature.start() if self._signature else None
        return Run(Verdict.UNKNOWN, self._loud.start(), self._silent.start(), canary, signature)

    def container(self, run: Run, broadcasts: float) -> Run:
        """The run after one more container with a life of its own."""
        return self.churn(run, Churned((broadcasts,)))

    def churn(self, run: Run, churned: Churned) -> Run:
        """The run after the containers of one churn."""
        loud, silent = run.broadcasting, run.quiet
        for broadcasts in churned.lives:
            loud = self._loud.step(loud, broadcasts)
        if churned.containers and (churned.late or churned.others):
            loud = self._loud.step(loud, churned.late / churned.containers)
        for x in silences(churned):
            silent = self._silent.step(silent, x)
        return self._judge(replace(run, broadcasting=loud, quiet=silent, seen=(*run.seen, churned)))

    def canary(self, run: Run, observation: float) -> Run:
        """The run after one more canary batch. Raises ValueError if the run was begun without a canary."""
        if self._canary is None or run.canary is None:
            raise ValueError("a canary must be staked on before the run: its allowance is missing")
        return self._judge(replace(run, canary=self._canary.step(run.canary, observation)))

    def signature(self, run: Run, per_container: float) -> Run:
        """The run after one more churn with so many signatures. Raises ValueError if they were not staked on."""
        if self._signature is None or run.signature is None:
            raise ValueError("the signature must be staked on before the run: its allowance is missing")
        return self._judge(replace(run, signature=self._signature.step(run.signature, per_container)))

    def evidence(self, run: Run) -> tuple[Scaled, Scaled]:
        """The evidence for `broadcasting` (containers, canary and signature together) and for `quiet`."""
        loud = run.broadcasting.total()
        if run.canary is not None:
            loud = loud.mean_with(run.canary.total())
        if run.signature is not None:
            loud = loud.mean_with(run.signature.total())
        return loud, run.quiet.total()

    def needs(self, run: Run) -> int | None:
        """How many more containers decide if they go on as so far, silent if none was seen; None if that is no way."""
        if run.verdict is not Verdict.UNKNOWN:
            return 0
        more = 0
        for churned in _pattern(run.seen):
            run = self.churn(replace(run, seen=()), churned)
            more += churned.containers
            if run.verdict is not Verdict.UNKNOWN:
                return more
            if more >= MOST_MORE:
                break
        return None

    def _judge(self, run: Run) -> Run:
        if run.verdict is not Verdict.UNKNOWN:
            return run
        if self.evidence(run)[0].reaches(self.evidence_needed):
            return replace(run, verdict=Verdict.BROADCASTING)
        if run.quiet.reaches(self.evidence_needed):
            return replace(run, verdict=Verdict.QUIET)
        return run


def silences(churned: Churned) -> Iterator[float]:
    """What the wager on silence hears, 0 for each container that may have broadcast, worst first."""
    silent = sum(1 for broadcasts in churned.lives if not broadcasts) + churned.others
    partly = [1.0 - min(broadcasts, 1.0) for broadcasts in churned.lives if broadcasts]
    suspect = min(silent, int(churned.late) + (churned.late > int(churned.late)))
    yield from partly
    yield from (0.0,) * suspect
    yield from (1.0,) * (silent - suspect)


def _pattern(seen: Sequence[Churned]) -> Iterator[Churned]:
    """What was seen, again and again: container by container where each has a life of its own."""
    if any(churned.late or churned.others for churned in seen):
        return cycle(churned for churned in seen if churned.containers)
    lives = [broadcasts for churned in seen for broadcasts in churned.lives]
    return cycle([Churned((broadcasts,)) for broadcasts in lives or [0.0]])
