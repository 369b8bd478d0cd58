"""`kickwatch trial`: one verdict, with a stated error rate on either side.

- `broadcasting`: evidence against "the mean is at most the allowance" reaches 1/alpha;
- `quiet`: evidence against "at least one container in three broadcasts" reaches 1/alpha.

Both are e-processes. Looking after every container therefore costs nothing, and `--until-decided` may go on for any
time: each wrong verdict has a probability of at most alpha (Ville's inequality). The first to reach 1/alpha decides.

Why one in three: it is the smallest share that 23 containers without a broadcast exclude at alpha 1e-4, since (2/3)**23
= 0.9e-4. Half a broadcast per container is covered in any ordinary form (0, 1, 0, 1...; Poisson, where 39 % of the
containers have one), but not as bursts in fewer than a third of the containers.

The signature, the canary and the pairs of halves, if the run has them, have stakes that are placed before the start:
the mean of e-values is an e-value however they depend on each other. Half of the money bets on the signature, since one
observation of it must be able to decide a trial (slab caches made by a kworker after the last container was gone: 32
kicks for each container). A quarter bets on the containers, as little as lets 4 broadcasts of 4 containers decide, and
the rest on the batches and the pairs, an eighth each if the run has both.

The pairs are evidence for `broadcasting` alone, and `quiet` says nothing of them: containers whose creation path is
quiet may still come with broadcasts from elsewhere. So of a run with pairs, `quiet` is not final: as long as it goes
on, the evidence for `broadcasting` may still reach 1/alpha, with the same error rate.

Broadcasts that lie in no single container's life count as a burst. Against the allowance a burst is one observation. In
the test for `quiet` it counts as the largest number of containers it can have come from: no other way to share it out
makes the product of the wagers smaller.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import msgspec
from msgspec.structs import replace

from kickwatch.detect.eprocess import EProcess
from kickwatch.detect.lives import Churned
from kickwatch.detect.pairs import PairWager
from kickwatch.detect.scaled import Scaled
from kickwatch.detect.streams import CREATION_PATH, Allowance
from kickwatch.detect.wager import NOTHING, Bets, Null, Wager, Wealth
from kickwatch.model import Verdict

ALPHA = 1e-4
FAULTY_SHARE = 1.0 / 3.0
MOST_MORE = 10_000  # containers: to advise more than that would be no help

# 29/32 of the money is on "none at all": it decides 23 containers without a broadcast, 1.5**23 * 29/32 = 1.02e4.
NONE_AT_ALL = Bets(parts=(64, 58, 52, 46, 40, 32, 24, 16, 8), shares=(232, 3, 3, 3, 3, 3, 3, 3, 3))
# A signature needs one observation: 29/32 of its money is on "all at once".
AT_ONCE = NONE_AT_ALL


class Run(msgspec.Struct, frozen=True):
    """One run so far. `broadcasting` is final, and so is `quiet` without a stake on pairs.

    `elsewhere`: without the pairs the evidence would not have been enough for `broadcasting`.
    """

    verdict: Verdict
    broadcasting: Wealth
    quiet: Wealth
    canary: Wealth | None
    signature: Wealth | None
    seen: tuple[Churned, ...] = ()
    pairs: Wealth | None = None
    differences: tuple[float, ...] = ()  # of pairs, as `pairs.differences` gives them
    elsewhere: bool = False


class OneShot:
    """The two tests of one run; each step takes a Run and returns the next one."""

    def __init__(
        self,
        alpha: float = ALPHA,
        allowance: Allowance = CREATION_PATH,
        canary: Allowance | None = None,
        signature: Allowance | None = None,
        pairs: PairWager | None = None,
    ) -> None:
        """`alpha`: the probability of a wrong verdict on each side.

        `canary`, `signature`: their allowances; `pairs`: the bets on them. None where the run has no stake on these.
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"an error rate lies between 0 and 1; it is {alpha}")
        self.evidence_needed = 1.0 / alpha
        self._broadcasting = EProcess(Wager(Null(allowance.mean, allowance.clip)))
        self._quiet = EProcess(Wager(Null(1.0 - FAULTY_SHARE, 1.0), NONE_AT_ALL))
        self._canary = EProcess(Wager(Null(canary.mean, canary.clip))) if canary else None
        self._signature = EProcess(Wager(Null(signature.mean, signature.clip), AT_ONCE)) if signature else None
        self._pairs = pairs

    def start(self) -> Run:
        """Nothing observed."""
        canary = self._canary.start() if self._canary else None
        signature = self._signature.start() if self._signature else None
        pairs = Wealth(0, self._pairs.stakes) if self._pairs else None
        return Run(Verdict.UNKNOWN, self._broadcasting.start(), self._quiet.start(), canary, signature, pairs=pairs)

    def container(self, run: Run, broadcasts: float) -> Run:
        """The run after one more container whose life is known."""
        return self.churn(run, Churned((broadcasts,)))

    def churn(self, run: Run, churned: Churned) -> Run:
        """The run after the containers of one churn."""
        broadcasting, quiet = run.broadcasting, run.quiet
        for broadcasts in churned.lives:
            broadcasting = self._broadcasting.step(broadcasting, broadcasts)
        if churned.containers and (churned.late or churned.others):
            broadcasting = self._broadcasting.step(broadcasting, churned.late / churned.containers)
        for x in quiet_observations(churned):
            quiet = self._quiet.step(quiet, x)
        return self._judge(replace(run, broadcasting=broadcasting, quiet=quiet, seen=(*run.seen, churned)))

    def canary(self, run: Run, observation: float) -> Run:
        """The run after one more canary batch. Raises ValueError if the run has no stake on the canary."""
        if self._canary is None or run.canary is None:
            raise ValueError("a canary needs a stake before the run: its allowance is missing")
        return self._judge(replace(run, canary=self._canary.step(run.canary, observation)))

    def signature(self, run: Run, per_container: float) -> Run:
        """The run after one more churn, with its signatures per container.

        Raises ValueError if the run has no stake on them.
        """
        if self._signature is None or run.signature is None:
            raise ValueError("the signature needs a stake before the run: its allowance is missing")
        return self._judge(replace(run, signature=self._signature.step(run.signature, per_container)))

    def paired(self, run: Run, differences: tuple[float, ...]) -> Run:
        """The run after the pairs of one trial, at least one.

        Raises ValueError if the run has no stake on them.
        """
        if self._pairs is None or run.pairs is None:
            raise ValueError("pairs need a stake before the run")
        seen = (*run.differences, *differences)
        return self._judge(replace(run, pairs=self._pairs.step_trial(run.pairs, differences), differences=seen))

    def evidence(self, run: Run) -> tuple[Scaled, Scaled]:
        """The evidence for `broadcasting` (containers, canary, pairs and signature together) and for `quiet`."""
        broadcasting = run.broadcasting.total()
        beside = [wealth.total() for wealth in (run.canary, run.pairs) if wealth is not None]
        if beside:
            first, *second = beside
            broadcasting = broadcasting.mean_with(first.mean_with(second[0]) if second else first)
        if run.signature is not None:
            broadcasting = broadcasting.mean_with(run.signature.total())
        return broadcasting, run.quiet.total()

    def needs(self, run: Run, *, convicted: bool = False) -> int | None:
        """How many more containers decide, if they are like those before; None if 10,000 would not.

        Before the first container, containers without a broadcast are assumed. `convicted`: only `broadcasting` decides
        (too many broadcasts elsewhere for `quiet`).
        """
        undecided = {Verdict.UNKNOWN, Verdict.QUIET} if convicted and run.differences else {Verdict.UNKNOWN}
        if run.verdict not in undecided:
            return 0
        more, differences = 0, cycle(run.differences)
        for churned in _pattern(run.seen):
            run = self._repeated(run, churned, tuple(islice(differences, churned.containers)))
            more += churned.containers
            if run.verdict not in undecided:
                return more
            if more >= MOST_MORE:
                break
        return None

    def _repeated(self, run: Run, churned: Churned, differences: tuple[float, ...]) -> Run:
        """The run after more containers that are like others before, and are not remembered."""
        run = self.churn(replace(run, seen=()), churned)
        return self.paired(replace(run, differences=()), differences) if differences else run

    def _judge(self, run: Run) -> Run:
        if run.verdict is Verdict.BROADCASTING or (run.verdict is Verdict.QUIET and run.pairs is None):
            return run
        if self.evidence(run)[0].reaches(self.evidence_needed):
            without = self.evidence(replace(run, pairs=Wealth(0, NOTHING)))[0]
            elsewhere = run.pairs is not None and not without.reaches(self.evidence_needed)
            return replace(run, verdict=Verdict.BROADCASTING, elsewhere=elsewhere)
        if run.quiet.reaches(self.evidence_needed):
            return replace(run, verdict=Verdict.QUIET)
        return run


def quiet_observations(churned: Churned) -> Iterator[float]:
    """What the test for `quiet` observes: 1 for a container without a broadcast, 0 for one that may have broadcast.

    The worst come first.
    """
    zeros = sum(1 for broadcasts in churned.lives if not broadcasts) + churned.others
    partly = [1.0 - min(broadcasts, 1.0) for broadcasts in churned.lives if broadcasts]
    suspect = min(zeros, int(churned.late) + (churned.late > int(churned.late)))
    yield from partly
    yield from (0.0,) * suspect
    yield from (1.0,) * (zeros - suspect)


def _pattern(seen: Sequence[Churned]) -> Iterator[Churned]:
    """What was seen, over and over: container by container where the life of each is known."""
    if any(churned.late or churned.others for churned in seen):
        return cycle(churned for churned in seen if churned.containers)
    lives = [broadcasts for churned in seen for broadcasts in churned.lives]
    return cycle([Churned((broadcasts,)) for broadcasts in lives or [0.0]])
