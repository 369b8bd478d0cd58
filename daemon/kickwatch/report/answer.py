"""The answer of a run for a reader who has a minute: the verdict in one sentence, how sure it is, and what to do next.

Broadcast or not, which kernel function asked, how sure that is, what it does not say: in this order. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kickwatch.detect.classes import jit_broadcasts
from kickwatch.detect.single import Single
from kickwatch.detect.verdict import Finding, ReasonedVerdict, VerdictReason
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.report.beside import allowed_words
from kickwatch.report.reason_words import FINDINGS, WHY_OPEN
from kickwatch.report.run_words import NextStep, Point, RunWords, asker_of

_CREATOR, _OTHERS = "the task that creates the container", "a task or an interrupt"
_FAULT = "interrupt all other CPUs"


@dataclass(frozen=True)
class RunAnswer:
    """`headline`: the verdict in one sentence. `points`: (label, text) of what supports and limits it."""

    verdict: Verdict
    headline: str
    points: tuple[Point, ...]
    steps: tuple[NextStep, ...]


def answer(trials: Sequence[Trial], judgement: ReasonedVerdict, single: Single, recorded: str = "") -> RunAnswer:
    """The answer over all trials of a run. `recorded`: the file that has their records; empty if none."""
    words = RunWords(trials, judgement, single, recorded)
    of_verdict = {Verdict.QUIET: _quiet, Verdict.BROADCASTING: _broadcasting, Verdict.UNKNOWN: _unknown}
    headline, points, steps = of_verdict[judgement.verdict](words)
    why = f" ({', '.join(judgement.reasons)})" if judgement.reasons else ""
    known = [finding for finding in map(Finding, judgement.findings) if finding in FINDINGS]
    findings = [("finding", f"{finding.value}: {FINDINGS[finding]}") for finding in known]
    pairs = words.by_pairs and not words.by_creation
    claims = ("broadcasting by the pairs", "a quiet creation path") if pairs else ("broadcasting", "quiet")
    evidence = f"for {claims[0]} {single.evidence_broadcasting}, for {claims[1]} {single.evidence_quiet}"
    return RunAnswer(
        verdict=judgement.verdict,
        headline=f"{judgement.verdict.value}{why}: {headline}",
        points=(*points, *findings, ("evidence", f"{evidence}; {single.evidence_needed} decides")),
        steps=tuple(steps),
    )


def _quiet(words: RunWords) -> tuple[str, list[Point], list[NextStep]]:
    does = "seldom broadcasts" if words.created else "does not broadcast"
    excluded = "a broadcast by the creation path in every third container or more often"
    node = words.trials[-1].node
    jit = jit_broadcasts(node.arch, node.kernel)
    points = [
        ("excluded", f"{excluded} (wrong in at most {words.rate})"),
        ("not excluded", "rarer ones; other kernels, engines, networks; container removal"),
        *(("also seen", allowed_words(one, jit=jit)) for one in other_broadcasts(words.trials)),
    ]
    step = NextStep("nothing to do; the daemon watches for what later changes bring", "kickwatch run")
    return f"creating containers {does} IPIs ({words.created} in {words.containers})", points, [step]


def _broadcasting(words: RunWords) -> tuple[str, list[Point], list[NextStep]]:
    """The creation path first, if it is to blame."""
    headlines: list[str] = []
    points: list[Point] = []
    steps: list[NextStep] = []
    for to_blame, part in ((words.by_creation, _by_creation), (words.by_pairs, _by_pairs)):
        if to_blame:
            headline, more, next_steps = part(words)
            headlines.append(headline)
            points += more
            steps += next_steps
    if not words.by_creation:
        points.append(("creation path", words.created_words))
    return "; ".join(headlines), points, [*steps, words.bug_report()]


def _by_creation(words: RunWords) -> tuple[str, list[Point], list[NextStep]]:
    worst = words.blamed
    if worst is None:
        headline = f"creating a memory cgroup makes this kernel {_FAULT}; which function asked is not known"
        sure = f"by the counters of the canary; wrong in at most {words.rate}"
        return headline, [("how sure", sure)], [words.confirm(None)]
    each = f"{worst.cell.broadcasts / worst.units:.3g} x {worst.cell.reason} per {worst.unit}"
    asked = asker_of(worst.cell.stack)
    by = f", asked for by {asked}" if asked else ""
    points = [*words.asked(worst.cell, _CREATOR), ("how sure", words.sure_by_stack(worst.cell))]
    return f"creating a {worst.unit} makes this kernel {_FAULT}: {each}{by}", points, [words.confirm(worst.cell)]


def _by_pairs(words: RunWords) -> tuple[str, list[Point], list[NextStep]]:
    worst = words.worst_elsewhere()
    points = words.asked(worst, _OTHERS) if worst is not None else []
    points.append(("how sure", words.sure_by_pairs()))
    headline = f"containers make this kernel {_FAULT}, but from outside the creation path: {words.elsewhere}"
    return headline, points, [*words.find_work(worst), words.confirm(worst)]


def _unknown(words: RunWords) -> tuple[str, list[Point], list[NextStep]]:
    reasons = [_why_open(reason) for reason in words.judgement.reasons]
    texts = [text.format(containers=words.containers, count=words.count) for text, _, _ in reasons]
    headline = "; ".join(dict.fromkeys(texts)) or "this run cannot decide"
    points: list[Point] = []
    steps = []
    if words.single.more_containers:
        more = f"about {words.single.more_containers} more containers decide"
        steps.append(NextStep(more, "kickwatch trial --until-decided"))
    steps += [NextStep(what, command) for _, what, command in reasons if what]
    if words.by_pairs:
        headline = f"{headline}: {words.elsewhere}"
        worst = words.worst_elsewhere()
        points += words.asked(worst, _OTHERS) if worst is not None else []
        points.append(("how sure", "not proven: a worker, a timer or a program may ask without containers, too"))
        steps.append(words.confirm(worst))
    points.append(("creation path", words.created_words))
    return (
        headline,
        points,
        steps or [NextStep("run it again, with more containers", "kickwatch trial --until-decided")],
    )


def _why_open(reason: str) -> tuple[str, str, str]:
    """The meaning of a reason, what to do, and a command."""
    return WHY_OPEN.get(VerdictReason(reason), (reason.replace("_", " "), "", ""))
