"""The verdict of `kickwatch trial`: the one-shot test over the trials of one run, and how many more it needs. Pure."""

from collections.abc import Sequence

import msgspec

from kickwatch.detect.classes import broadcasts_of
from kickwatch.detect.lives import churned_of, lives_of
from kickwatch.detect.observations import observations_of
from kickwatch.detect.oneshot import ALPHA, MOST_MORE, OneShot, Run
from kickwatch.detect.pairs import PairWager
from kickwatch.detect.scaled import Scaled
from kickwatch.detect.sentences import height
from kickwatch.detect.streams import StreamName, allowance_of
from kickwatch.detect.verdict import (
    MIN_CONTAINERS,
    VerdictReason,
    broadcasts_elsewhere,
    doubts_of,
    judge,
    void_reasons,
)
from kickwatch.model import IpiRung, Trial, Verdict


class Single(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict with its error rate. `more_containers`: how many decide if they are like the others; None: none do.

    `creation_path_quiet`: the evidence is enough to call the creation path quiet, whatever came from elsewhere.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[str, ...]
    error_rate: float
    more_containers: int | None
    evidence_broadcasting: str
    evidence_quiet: str
    evidence_needed: str
    text: str
    creation_path_quiet: bool = False


def one_shot(trials: Sequence[Trial], alpha: float = ALPHA) -> Single:
    """The verdict over the trials of one run; at least one. Each wrong verdict has a probability of at most `alpha`."""
    # The configuration decides whether there is a canary and whether there are pairs: before the first observation.
    canary = allowance_of(StreamName.CANARY) if trials[0].canary is not None else None
    pairs = PairWager() if trials[0].pairs else None
    test = OneShot(alpha, canary=canary, signature=allowance_of(StreamName.SIGNATURE), pairs=pairs)
    run = test.start()
    for trial in trials:
        run = _after(test, run, trial)
    doubts = [doubt for doubt in doubts_of(trials) if doubt != VerdictReason.TOO_FEW_CONTAINERS]
    void = void_reasons(trials)
    verdict, reasons = _verdict(run, trials, void, doubts)
    convicted = VerdictReason.BROADCASTS_ELSEWHERE in reasons
    more = None if void or doubts else test.needs(run, convicted=convicted)
    broadcasting, quiet = test.evidence(run)
    return Single(
        verdict=verdict,
        reasons=tuple(reasons),
        findings=judge(trials).findings,
        error_rate=alpha,
        more_containers=more,
        evidence_broadcasting=str(broadcasting),
        evidence_quiet=str(quiet),
        evidence_needed=height(test.evidence_needed),
        text=_text(verdict, more, broadcasting, quiet, test.evidence_needed),
        creation_path_quiet=not void and not doubts and quiet.reaches(test.evidence_needed),
    )


def containers_needed(alpha: float) -> int:
    """How many containers without a broadcast are `quiet` at this error rate; None of them may fail."""
    return max(MIN_CONTAINERS, OneShot(alpha).needs(OneShot(alpha).start()) or MOST_MORE)


def _after(test: OneShot, run: Run, trial: Trial) -> Run:
    if void_reasons([trial]):
        return run
    seen = broadcasts_of(trial.churn.cells)
    lives = lives_of(trial, seen.created)
    if lives.count and trial.observers.ipis is not IpiRung.COUNTERS:
        run = test.signature(run, seen.kicks / lives.count)
        run = test.churn(run, churned_of(lives))
    if run.canary is not None:
        for batch in observations_of(trial).amounts.get(StreamName.CANARY, ()):
            run = test.canary(run, batch)
    if run.pairs is not None:
        differences = observations_of(trial).differences.get(StreamName.ELSEWHERE_PAIRS)
        run = test.paired(run, differences) if differences else run
    return run


def _verdict(run: Run, trials: Sequence[Trial], void: list[str], doubts: list[str]) -> tuple[Verdict, list[str]]:
    decided = run.verdict
    if void:
        return Verdict.UNKNOWN, [*void, *doubts]
    if decided is Verdict.BROADCASTING and not _untrusted(trials):
        seen = list(judge(trials).reasons) if judge(trials).verdict is Verdict.BROADCASTING else []
        by_pairs = [VerdictReason.BROADCASTS_ELSEWHERE.value] if run.elsewhere else []
        return decided, [*seen, *by_pairs] or [VerdictReason.CREATION_PATH.value]
    if doubts:
        return Verdict.UNKNOWN, doubts
    elsewhere = [VerdictReason.BROADCASTS_ELSEWHERE.value] if broadcasts_elsewhere(trials) else []
    if decided is Verdict.UNKNOWN:
        return decided, [*elsewhere, VerdictReason.INSUFFICIENT_EVIDENCE.value]
    return (Verdict.UNKNOWN, elsewhere) if elsewhere and decided is Verdict.QUIET else (decided, [])


def _untrusted(trials: Sequence[Trial]) -> bool:
    """Whether a probe's figures cannot be used: it failed its control, or saw nothing at all."""
    probed = [trial for trial in trials if trial.observers.ipis is not IpiRung.COUNTERS]
    return bool({VerdictReason.BLIND.value, VerdictReason.ONE_CPU.value}.intersection(doubts_of(probed)))


def _text(verdict: Verdict, more: int | None, broadcasting: Scaled, quiet: Scaled, needed: float) -> str:
    figures = f"evidence for broadcasting {broadcasting}, for quiet {quiet}, needed {height(needed)}"
    if verdict is Verdict.UNKNOWN and more:
        return f"{figures}: about {more} more containers decide"
    return figures
