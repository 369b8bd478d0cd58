"""What `kickwatch gate` asks of a kernel, as checks with an outcome each. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kickwatch.detect.figures import total_waits, waits_known
from kickwatch.detect.single import Single
from kickwatch.detect.verdict import Finding, ReasonedVerdict, VerdictReason, contention_known, doubts_of
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.report.answer import answer
from kickwatch.report.reason_words import FINDINGS, WHY_OPEN
from kickwatch.report.run_words import RunWords

_UNDECIDED = (VerdictReason.INSUFFICIENT_EVIDENCE, VerdictReason.BROADCASTS_ELSEWHERE)
_NOT_MEASURED = "not known: see `measurement`"
# Doubts that leave open what was not seen: of waits for slab_mutex, and of broadcasts from elsewhere.
_LOSSY = frozenset({VerdictReason.CONTAINERS_FAILED, VerdictReason.EVENTS_LOST})
_UNTOLD = _LOSSY | {
    VerdictReason.BLIND,
    VerdictReason.WAKEUPS_COUNTED,
    VerdictReason.KMEM_ACCOUNTING_UNKNOWN,
    VerdictReason.ONE_CPU,
}


class Outcome(StrEnum):
    """`skipped`: it is not known, and the verdict does not need it."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One question. `text`: what was seen, or why nothing is known, in one line."""

    name: str
    outcome: Outcome
    text: str


def checks_of(
    trials: Sequence[Trial], judgement: ReasonedVerdict, single: Single, *, strict: bool = False
) -> tuple[Check, ...]:
    """The checks over the trials of one run, at least one. `strict`: waits for slab_mutex are a fault, too."""
    words = RunWords(trials, judgement, single)
    why = [VerdictReason(reason) for reason in judgement.reasons] if judgement.verdict is Verdict.UNKNOWN else []
    lacks = [reason for reason in why if reason not in _UNDECIDED]
    headline = answer(trials, judgement, single).headline.partition(": ")[2]
    return (
        _measurement(words, lacks),
        _creation_path(words, headline, measured=not lacks),
        _elsewhere(words, headline, gap=_gap(trials, lacks, _UNTOLD)),
        _contention(words, strict=strict, gap=_gap(trials, lacks, _LOSSY)),
    )


def not_run(why: str) -> tuple[Check, ...]:
    """The checks of a run that has no trial."""
    rest = ("creation_path", "elsewhere", "slab_mutex")
    return (
        Check("measurement", Outcome.UNKNOWN, why),
        *(Check(name, Outcome.UNKNOWN, _NOT_MEASURED) for name in rest),
    )


def _measurement(words: RunWords, lacks: Sequence[VerdictReason]) -> Check:
    """Whether there is a result that may be believed."""
    if lacks:
        open_questions = [WHY_OPEN[reason] for reason in lacks]
        texts = [
            ": ".join(filter(None, (text.format(containers=words.containers, count=words.count), remedy)))
            for text, remedy, _ in open_questions
        ]
        return Check("measurement", Outcome.UNKNOWN, "; ".join(texts))
    last = words.trials[-1]
    control = f"; positive control: {last.control.detail}" if last.control is not None else ""
    seen = f"{words.containers}; requests by {last.observers.ipis}, waits by {last.observers.contention}{control}"
    return Check("measurement", Outcome.PASSED, seen)


def _creation_path(words: RunWords, headline: str, *, measured: bool) -> Check:
    broadcasting = words.judgement.verdict is Verdict.BROADCASTING
    if broadcasting and words.by_creation:
        return Check("creation_path", Outcome.FAILED, headline)
    if not measured:
        return Check("creation_path", Outcome.UNKNOWN, _NOT_MEASURED)
    if words.single.creation_path_quiet:
        excluded = f"one in every third container or more is excluded (wrong in at most {words.rate})"
        return Check("creation_path", Outcome.PASSED, f"{words.created_words}; {excluded}")
    return Check("creation_path", Outcome.UNKNOWN, f"{words.created_words}: too few to decide")


def _elsewhere(words: RunWords, headline: str, *, gap: str) -> Check:
    """Broadcasts that come with containers, and not from the creation path."""
    if words.by_pairs:
        failed = words.judgement.verdict is Verdict.BROADCASTING
        text = words.sure_by_pairs() if failed and words.by_creation else headline
        return Check("elsewhere", Outcome.FAILED if failed else Outcome.UNKNOWN, text)
    if gap:
        return Check("elsewhere", Outcome.UNKNOWN, gap)
    seen = sum(one.broadcasts_per_container for one in other_broadcasts(words.trials))
    text = f"{seen:.2g} broadcasts per container, expected ones or too few to matter" if seen else "no broadcasts"
    return Check("elsewhere", Outcome.PASSED, text)


def _gap(trials: Sequence[Trial], lacks: Sequence[VerdictReason], doubts: frozenset[VerdictReason]) -> str:
    """Why what was not seen proves nothing; empty if it does.

    A run that lost events, or had no probe, still convicts a kernel by what it did see, and then `lacks` nothing.
    """
    if lacks:
        return _NOT_MEASURED
    found = [WHY_OPEN[VerdictReason(doubt)][0] for doubt in doubts_of(trials) if doubt in doubts]
    return f"not known: {found[0]}" if found else ""


def _contention(words: RunWords, *, strict: bool, gap: str) -> Check:
    if not all(map(waits_known, words.trials)):
        outcome = Outcome.UNKNOWN if strict else Outcome.SKIPPED
        return Check("slab_mutex", outcome, "waits for slab_mutex cannot be seen here")
    contended = Finding.SLAB_MUTEX_CONTENTION in words.judgement.findings
    if gap:
        return Check("slab_mutex", Outcome.UNKNOWN, gap)
    if not contention_known(words.trials):
        outcome = Outcome.UNKNOWN if strict else Outcome.SKIPPED
        lost = "not known: with the waits that the probe lost there may be one for every second container"
        return Check("slab_mutex", outcome, lost)
    waits = sum(total_waits(trial.churn.waits)[0] for trial in words.trials)
    each = f"{waits / words.count:.2g} waits per container"
    if not contended:
        return Check("slab_mutex", Outcome.PASSED, each)
    outcome = Outcome.FAILED if strict else Outcome.PASSED
    return Check("slab_mutex", outcome, f"{each}: {FINDINGS[Finding.SLAB_MUTEX_CONTENTION].partition(' (')[0]}")
