"""The checks of `kickwatch gate`: no check passes that nobody could make, and each failure names its cause."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from builders import trial, wait
from kickwatch.commands.one_trial import exit_status
from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import Finding, ReasonedVerdict, contention_known
from kickwatch.model import ContentionRung, Control, IpiRung, KmemAccounting, Observers, Path, Trial, Verdict
from kickwatch.report.checks import Check, Outcome, checks_of, not_run
from screens import judged
from watching import paired, serial


def checked(*trials: Trial, judgement: ReasonedVerdict | None = None, strict: bool = False) -> dict[str, Check]:
    found = checks_of(trials, judgement or judged(trials), one_shot(trials), strict=strict)
    return {check.name: check for check in found}


def outcomes(checks: dict[str, Check]) -> str:
    return " ".join(check.outcome for check in checks.values())


def silent(number: int = 23) -> Trial:
    control = Control(passed=True, detail="23 of 23 multi-CPU calls")
    return replace(serial(0, number=number), control=control)


def test_a_silent_kernel_passes_and_says_what_was_excluded() -> None:
    checks = checked(silent())
    assert list(checks) == ["measurement", "creation_path", "elsewhere", "slab_mutex"]
    assert outcomes(checks) == "passed passed passed passed"
    assert "23 of 23 multi-CPU calls" in checks["measurement"].text
    assert checks["creation_path"].text == (
        "0 broadcasts in 23 containers; one in every third container or more is excluded (wrong in at most 1 run in"
        " 10,000)"
    )


def test_the_fault_of_2017_fails_the_creation_path_by_name() -> None:
    checks = checked(serial(3, number=12))
    assert checks["creation_path"].outcome is Outcome.FAILED
    assert "3 x kick_all_cpus_sync per container, asked for by __do_tune_cpucache" in checks["creation_path"].text
    assert checks["measurement"].outcome is Outcome.PASSED


def test_too_few_containers_leave_the_creation_path_unknown() -> None:
    checks = checked(silent(12))
    assert outcomes(checks) == "passed unknown passed passed"
    assert checks["creation_path"].text == "0 broadcasts in 12 containers: too few to decide"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"control": Control(passed=False, detail="7 of 23")}, "the probes cannot see"),
        ({"observers": Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)}, "the probes cannot see"),
        ({"kmem_accounting": KmemAccounting.OFF}, "boot without cgroup.memory=nokmem"),
        ({"void": "tracing changed"}, "the machine changed during the trial"),
    ],
)
def test_nothing_passes_that_could_not_be_measured(changed: dict[str, object], why: str) -> None:
    checks = checked(replace(silent(), **changed))
    assert outcomes(checks).startswith("unknown unknown unknown")
    assert why in checks["measurement"].text
    assert "0 broadcasts" not in " ".join(check.text for check in checks.values())


def test_broadcasts_from_elsewhere_fail_a_check_of_their_own() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("broadcasts_elsewhere",), findings=())
    checks = checked(paired(*[6] * 22, 0), judgement=judgement)
    assert (checks["creation_path"].outcome, checks["elsewhere"].outcome) == (Outcome.PASSED, Outcome.FAILED)
    assert "from outside the creation path" in checks["elsewhere"].text


def test_broadcasts_from_elsewhere_that_are_not_proven_are_unknown() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.UNKNOWN, reasons=("broadcasts_elsewhere",), findings=())
    checks = checked(paired(*[6] * 3, *[0] * 20), judgement=judgement)
    assert outcomes(checks) == "passed passed unknown passed"


@pytest.mark.parametrize(("strict", "outcome"), [(False, Outcome.PASSED), (True, Outcome.FAILED)])
def test_waits_fail_a_strict_gate_alone(strict: bool, outcome: Outcome) -> None:
    findings = (Finding.SLAB_MUTEX_CONTENTION.value,)
    judgement = ReasonedVerdict(verdict=Verdict.QUIET, reasons=(), findings=findings)
    checks = checked(silent(), judgement=judgement, strict=strict)
    assert checks["slab_mutex"].outcome is outcome
    assert "make tasks wait for slab_mutex" in checks["slab_mutex"].text


def test_waits_that_nobody_can_see_are_no_zero() -> None:
    observers = Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE)
    check = checked(replace(silent(), observers=observers))["slab_mutex"]
    assert (check.outcome, check.text) == (Outcome.SKIPPED, "waits for slab_mutex cannot be seen here")


def test_without_a_trial_every_check_is_unknown() -> None:
    checks: Sequence[Check] = not_run("no engine answers: start one")
    assert {check.outcome for check in checks} == {Outcome.UNKNOWN}
    assert checks[0].text == "no engine answers: start one"
    assert [check.name for check in checks] == list(checked(silent()))


def test_the_reasons_of_a_failed_run_are_in_words() -> None:
    failed = trial(containers=tuple(replace(one, failure="no space left") for one in silent().containers))
    checks = checked(failed)
    assert checks["measurement"].outcome is Outcome.UNKNOWN
    assert "nearly all containers failed" in checks["measurement"].text


def test_no_zero_stands_where_no_container_counted() -> None:
    void = checked(replace(silent(), void="tracing changed"))
    failed = checked(trial(containers=tuple(replace(one, failure="no space left") for one in silent().containers)))
    for checks in (void, failed):
        assert (checks["slab_mutex"].outcome, checks["slab_mutex"].text) == (
            Outcome.UNKNOWN,
            "not known: see `measurement`",
        )


def test_a_kernel_convicted_by_a_lossy_run_is_not_cleared_of_the_rest() -> None:
    faulty = serial(3, number=12)
    checks = checked(replace(faulty, churn=replace(faulty.churn, lost_events=1_000_000)))
    assert outcomes(checks) == "passed failed unknown unknown"
    assert checks["elsewhere"].text == "not known: the probes lost events, and a broadcast may be among them"


def test_a_strict_gate_does_not_pass_where_waits_may_have_been_lost() -> None:
    """Half a wait for each container is contention: of 23, twelve lost ones may be that."""
    for lost, outcome in ((11, "passed"), (12, "unknown")):
        one = replace(silent(), churn=replace(silent().churn, lost_waits=lost))
        assert checked(one, strict=True)["slab_mutex"].outcome == outcome
        assert checked(one)["slab_mutex"].outcome == ("skipped" if outcome == "unknown" else outcome)
        assert exit_status([one], judged([one]), strict=True, bisect=False) == (0 if outcome == "passed" else 4)


@pytest.mark.parametrize(
    ("seen", "lost", "known"), [(0, 0, True), (0, 11, True), (0, 12, False), (7, 4, True), (7, 5, False)]
)
def test_lost_waits_count_together_with_those_that_were_seen(seen: int, lost: int, known: bool) -> None:
    """Twelve waits in 24 containers are contention."""
    one = trial(count=24)
    one = replace(one, churn=replace(one.churn, waits=(wait(seen, path=Path.CREATE),), lost_waits=lost))
    assert contention_known([one]) is known
    assert contention_known([one, trial(count=1)])


def test_a_kernel_convicted_by_counters_is_not_cleared_of_broadcasts_from_elsewhere() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("canary_interrupts",), findings=())
    observers = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.TRACEPOINT)
    blind = replace(silent(), observers=observers, churn=replace(silent().churn, cells=()))
    assert checked(blind, judgement=judgement)["elsewhere"].outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("strict", "outcome"), [(False, Outcome.SKIPPED), (True, Outcome.UNKNOWN)])
def test_waits_that_nobody_can_see_do_not_pass_a_strict_gate(strict: bool, outcome: Outcome) -> None:
    unseen = replace(silent(), observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE))
    assert checked(unseen, strict=strict)["slab_mutex"].outcome is outcome
