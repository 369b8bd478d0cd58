"""What the daemon remembers between trials, what it believes, and what it reports once."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from builders import TLB, containers, kick, trial, window
from fake_daemon import Recorder, config_in
from kickwatch.detect.state import ChangeKind
from kickwatch.errors import KickwatchError, ObserveError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import AlarmKind, ContentionRung, Control, IpiRung, Observers, Trial
from kickwatch.observe.losses import Loss, Lost
from kickwatch.outlets.events import (
    ContainersFailed,
    ContainersRun,
    ControlChanged,
    EvidenceOpened,
    Remarked,
    TrialTaken,
    VerdictFresh,
    VerdictStale,
)
from kickwatch.outlets.outlet import Outlets
from kickwatch.service.evidence import Evidence
from kickwatch.service.verdict_age import VerdictAge
from kickwatch.service.watch import Watch, newest

PASSED = Control(passed=True, detail="23 of 23 multi-CPU calls")
FAILED = Control(passed=False, detail="0 of 23 multi-CPU calls", cpus=(0, 1))


def test_the_newest_trials_with_enough_containers_are_judged_together() -> None:
    trials = [replace(trial(count=4), trial_id=str(number)) for number in range(6)]
    assert [one.trial_id for one in newest(trials)] == ["3", "4", "5"]


def test_trials_whose_containers_all_fail_do_not_pile_up() -> None:
    kept: list[Trial] = []
    for _ in range(50):
        kept = newest([*kept, trial(containers=containers(0, failed=5))])
    assert len(kept) <= 10


class FakeObservers:
    """Stands in for the armed observers: only what Watch uses between trials."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.next_control = control
        self.proofs = 0

    async def prove(self) -> None:
        self.proofs += 1
        self.control = self.next_control


class Watched:
    """A watch, its clock, its observers, and what it reported."""

    def __init__(self, evidence: Evidence, control: Control = PASSED) -> None:
        self.now_s = 1000.0
        self.recorder = Recorder()
        self.observers = FakeObservers(control)
        report = Outlets([self.recorder]).report
        self.watch = Watch(self.observers, evidence, report, now_s=lambda: self.now_s)  # type: ignore[arg-type]

    @property
    def taken(self) -> list[TrialTaken]:
        return self.recorder.of(TrialTaken)


async def watched(directory: Path, control: Control = PASSED) -> Watched:
    return Watched(await Evidence.open(config_in(directory)), control)


def faulty(number: int) -> Trial:
    lives = tuple(replace(life, creation_path_broadcasts=3) for life in containers(4))
    return replace(trial(kick(12), containers=lives), trial_id=f"{number:08x}")


def failed(number: int = 4) -> Trial:
    return trial(containers=containers(0, failed=number))


def raised(one: Watched) -> list[int]:
    """After how many trials an alarm was raised."""
    return [
        number
        for number, taken in enumerate(one.taken, 1)
        for change in taken.outcome.changes
        if change.kind is ChangeKind.RAISED and change.alarm is AlarmKind.BROADCASTING
    ]


async def test_trials_are_reported_and_an_alarm_is_raised_once(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    for number in range(5):
        await one.watch.take(faulty(number))
    assert [taken.trial.trial_id for taken in one.taken] == [f"{number:08x}" for number in range(5)]
    assert len(raised(one)) == 1
    assert one.taken[-1].recent[-1] is one.taken[-1].trial
    assert one.taken[-1].figures["attributed"].alerted


async def test_a_restart_in_mid_evidence_alarms_after_the_same_trial(tmp_path: Path) -> None:
    mild = [
        replace(faulty(number), containers=tuple(replace(life, creation_path_broadcasts=1) for life in containers(1)))
        for number in range(30)
    ]
    mild = [replace(one, churn=window("churn", TLB, kick(1))) for one in mild]
    whole = await watched(tmp_path / "whole")
    for one in mild:
        await whole.watch.take(one)
    parts: list[int] = []
    for number, one in enumerate(mild, 1):
        part = await watched(tmp_path / "parts")
        await part.watch.take(one)
        parts += [number] * len(raised(part))
    assert raised(whole) == parts
    assert len(parts) == 1


async def test_a_void_trial_is_reported_and_proves_nothing(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    for number in range(20):
        await one.watch.take(replace(faulty(number), void="engine_restarted"))
    assert one.recorder.names() == ["TrialTaken"]
    assert raised(one) == []
    assert one.taken[-1].recent == ()


async def test_a_failed_control_is_reported_once_and_so_is_the_next_that_passes(tmp_path: Path) -> None:
    one = await watched(tmp_path, FAILED)
    for control in (FAILED, FAILED, PASSED, PASSED):
        one.observers.control = control
        await one.watch.check_control()
    assert one.recorder.events == [
        ControlChanged(False, FAILED.detail, FAILED.cpus),
        ControlChanged(True, PASSED.detail, PASSED.cpus),
    ]


async def test_the_control_is_repeated_once_per_period_and_after_a_refused_reading(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.check_control()
    await one.watch.control_if_due(60.0)
    one.now_s += 60.0
    await one.watch.control_if_due(60.0)
    await one.watch.control_if_due(60.0)
    assert one.observers.proofs == 1
    await one.watch.control_after(OSError(28, "No space left on device"))
    assert one.observers.proofs == 1
    one.observers.next_control = FAILED
    await one.watch.control_after(ObserveError("BPF map cells: lookup failed (EPERM)", "CAP_BPF"))
    assert (one.observers.proofs, one.watch.reasons) == (2, ("blind",))


async def test_a_remark_is_reported_once(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    knob = Remark(RemarkKind.KNOB_IGNORED, "a knob is ignored")
    for _ in range(2):
        await one.watch.remark((knob,))
    assert [event.remark.text for event in one.recorder.of(Remarked)] == ["a knob is ignored"]


async def test_a_cause_that_takes_away_more_is_reported_with_the_rest_alone(tmp_path: Path) -> None:
    """After a reload to passive mode all that it had taken away was reported again."""
    one = await watched(tmp_path)
    requests, members = (Loss(lost, "no kprobes", "boot another") for lost in (Lost.REQUESTS, Lost.MEMBERS))
    await one.watch.remark_losses((requests, Loss(Lost.HOLDERS, "no task has waited", "wait for one")))
    await one.watch.remark_losses((requests, members))
    await one.watch.remark_losses((requests,))
    assert [(event.remark.kind, event.remark.text) for event in one.recorder.of(Remarked)] == [
        (RemarkKind.CAPABILITY_LOST, "no kprobes; lost: IPIs by reason; fix: boot another"),
        (RemarkKind.CAPABILITY_LOST, "no task has waited; lost: who holds slab_mutex; fix: wait for one"),
        (RemarkKind.CAPABILITY_LOST, "no kprobes; lost: what the containers of others ask for; fix: boot another"),
    ]


async def test_the_notes_of_a_record_are_not_reported_again(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.take(replace(faulty(0), notes=("no probe",)))
    assert one.recorder.of(Remarked) == []


async def test_whether_the_newest_trial_was_kept_is_known(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    one = await watched(tmp_path)
    await one.watch.take(faulty(0))
    assert not one.watch.belief().history_kept
    (tmp_path / "state").unlink()
    await one.watch.take(faulty(1))
    assert one.watch.belief().history_kept


async def test_the_condition_follows_evidence_and_control(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    assert one.watch.condition == "unknown"
    for _ in range(3):
        await one.watch.take(trial())
    assert one.watch.condition == "quiet"
    one.observers.control = FAILED
    await one.watch.check_control()
    assert one.watch.condition == "unknown"
    assert not one.watch.belief().control_passed
    for number in range(5):
        await one.watch.take(faulty(number))
    assert one.watch.condition == "broadcasting"


async def test_a_new_watch_knows_nothing_and_names_what_is_missing(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    belief = one.watch.belief()
    assert (belief.condition, belief.reasons) == ("unknown", ("insufficient_evidence",))
    assert (belief.more_containers, belief.verdict_age_s) == (23, None)
    await one.watch.take(trial(count=20))
    belief = one.watch.belief()
    assert (belief.condition, belief.more_containers) == ("unknown", 3)
    await one.watch.take(trial(count=20))
    belief = one.watch.belief()
    assert (belief.condition, belief.reasons, belief.more_containers) == ("quiet", (), None)
    assert (belief.trials, belief.containers) == (2, 40)
    assert belief.verdict_age_s == 0.0


async def test_the_evidence_in_force_is_reported_and_asked_for_again_later(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.opened()
    await one.watch.take(trial(count=20))
    (opened,) = one.recorder.of(EvidenceOpened)
    assert opened.figures == {}
    assert opened.believe().containers == 20
    await one.watch.adopt(one.watch.evidence, 60.0)
    assert "attributed" in one.recorder.of(EvidenceOpened)[1].figures
    one.now_s += 61.0
    assert one.watch.stale


async def test_failing_containers_are_reported_once_with_the_engines_error_and_so_is_their_end(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.take(trial())
    for _ in range(5):
        await one.watch.take(failed())
    assert (one.watch.condition, one.watch.reasons) == ("unknown", ("containers_failed",))
    await one.watch.take(trial(count=4))
    (event,) = one.recorder.of(ContainersFailed)
    assert event.what == "container kickwatch-x-0 did not start"
    assert (event.failed, event.containers) == (4, 4)
    assert [taken.outcome.verdict for taken in one.taken] == ["quiet", "quiet", *["unknown"] * 4, "quiet"]
    assert one.recorder.of(ContainersRun) == [ContainersRun(4, 0)]
    assert one.watch.condition == "quiet"
    names = one.recorder.names()
    assert names.index("ContainersFailed") < len(names) - 1, "before the trial that shows it"


async def test_an_unconfirmed_verdict_becomes_stale_once_and_fresh_once(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.take(trial())
    one.now_s += 86_400.0
    await one.watch.check_age()
    assert one.watch.condition == "quiet"
    one.now_s += 1.0
    await one.watch.check_age()
    await one.watch.check_age()
    assert (one.watch.condition, one.watch.reasons) == ("unknown", ("stale",))
    await one.watch.take(replace(trial(), void="cpus_changed"))
    assert one.watch.reasons == ("stale",)  # a void trial confirms nothing
    await one.watch.take(replace(trial(), started_unix_s=9.0))
    assert one.watch.condition == "quiet"
    assert one.recorder.of(VerdictStale) == [VerdictStale(86_401.0)]
    assert one.recorder.of(VerdictFresh) == [VerdictFresh(one.watch.condition)]


async def test_an_alarm_does_not_go_stale(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    for number in range(5):
        await one.watch.take(replace(faulty(number), started_unix_s=number + 1.0))
    one.now_s += 1e6
    assert one.watch.condition == "broadcasting"
    assert one.watch.verdict_age_s == 1e6


async def test_the_age_outlives_a_restart(tmp_path: Path) -> None:
    await (await watched(tmp_path)).watch.take(replace(trial(), started_unix_s=time.time() - 90_000.0))
    again = (await watched(tmp_path)).watch
    assert (again.condition, again.reasons) == ("unknown", ("stale",))
    assert again.verdict_age_s == pytest.approx(90_000.0, abs=60.0)


async def test_quiet_of_another_boot_is_not_this_ones(tmp_path: Path) -> None:
    one = trial()
    before = replace(one, started_unix_s=time.time(), node=replace(one.node, boot_id="before"))
    await (await watched(tmp_path)).watch.take(before)
    again = (await watched(tmp_path)).watch
    assert again.condition == "quiet"
    again.boot_id = "after"
    assert (again.condition, again.reasons, again.more_containers) == ("unknown", ("insufficient_evidence",), 23)


def test_a_clock_that_was_set_back_makes_no_verdict_younger_than_now() -> None:
    assert VerdictAge(time.time() + 1000.0).seconds == pytest.approx(0.0, abs=5.0)


async def test_what_the_observers_cannot_count_is_unknown(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    await one.watch.take(trial(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)))
    await one.watch.take(trial(kick(9), control=Control(passed=False, detail="0 of 23")))
    assert one.watch.reasons == ("blind",)


async def test_trials_that_fail_as_a_whole_count_as_failed_containers(tmp_path: Path) -> None:
    """A user's image that was pruned: no container is started, and the condition must not stay quiet."""
    one = await watched(tmp_path)
    gone = KickwatchError("the image app:1 is not on this node", "docker pull app:1")
    await one.watch.take(trial())
    await one.watch.trial_failed(gone)
    assert one.watch.condition == "quiet"
    for _ in range(3):
        await one.watch.trial_failed(gone)
    assert (one.watch.condition, one.watch.reasons) == ("unknown", ("containers_failed",))
    await one.watch.take(trial())
    assert one.recorder.of(ContainersFailed) == [ContainersFailed(gone.what, gone.remedy, 0, 0)]
    assert len(one.recorder.of(ContainersRun)) == 1
    assert one.watch.condition == "quiet"


async def test_an_alarm_of_another_boot_is_not_this_ones(tmp_path: Path) -> None:
    one = await watched(tmp_path)
    for number in range(5):
        await one.watch.take(replace(faulty(number), node=replace(trial().node, boot_id="before")))
    assert one.watch.condition == "broadcasting"
    one.watch.boot_id = "after"
    assert (one.watch.condition, one.watch.more_containers) == ("unknown", 23)
