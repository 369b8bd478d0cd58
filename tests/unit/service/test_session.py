"""One session: its order, how trials and starts end, what stays in the daemon's state. Engine and trials are fakes."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from builders import trial
from fake_daemon import DOCKER, GONE, FakeDaemon, config_in, fake_daemon
from kickwatch.configuration.types import Config, EngineKind, ServiceConfig, TrialConfig, WorkloadConfig
from kickwatch.detect.state import ChangeKind, TrialOutcome
from kickwatch.errors import ConfigError, EngineAbsentError, EngineError, ObserveError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import AlarmKind, Condition, Control, Look, Trial
from kickwatch.observe.losses import Loss, Lost
from kickwatch.outlets.events import (
    Beat,
    ControlChanged,
    Drained,
    EngineFound,
    EngineLost,
    GuardCalm,
    Off,
    PassiveSummary,
    PassiveTaken,
    Reaped,
    Remarked,
    Restored,
    TrialFailed,
    TrialsOff,
    TrialTaken,
)
from kickwatch.outlets.live_status import OthersStatus
from kickwatch.process.signals import DrainedError
from kickwatch.service.budget import FILE, load_spent
from kickwatch.service.progress import progress_of
from kickwatch.service.session import ExperimentSession, PassiveSession

PLANNED, STARTED = 10, 3


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


async def charged(config: Config) -> list[int]:
    """The containers that are charged on disk, oldest charge first."""
    spent = await asyncio.to_thread(load_spent, Path(config.state.directory) / FILE)
    return [containers for _, containers in spent or ()]


async def run(config: Config, daemon: FakeDaemon) -> None:
    await asyncio.wait_for(ExperimentSession(config, daemon.parts).run(), 60)


async def test_a_session_is_a_start_trials_and_an_end(config: Config) -> None:
    daemon = await fake_daemon(config, trials=2)
    await run(config, daemon)
    assert daemon.node.calls == ["open", "trial", "tidy", "trial", "tidy", "close"]
    assert daemon.recorder.names(Beat, GuardCalm) == [
        "TrialsOff",
        "Reaped",
        "TrialTaken",
        "Reaped",
        "TrialTaken",
        "Reaped",
    ]
    assert daemon.notifier.statuses == [
        "preparing the engine",
        "unknown; trial 1: churn window",
        "unknown; trial 2: churn window",
    ]
    assert (daemon.parts.state.trials_begun, daemon.parts.state.engine) == (2, DOCKER)
    assert await charged(config) == [1, PLANNED, PLANNED]


async def test_the_next_trial_is_due_after_the_interval_also_in_the_next_session(config: Config) -> None:
    config = replace(config, trial=TrialConfig(interval_s=60.0, jitter=0.0))
    daemon = await fake_daemon(config, trials=2)
    begin_s = daemon.switches.now_s
    daemon.switches.at(10.0, daemon.switches.reload)
    await run(config, daemon)
    assert (daemon.parts.state.trials_begun, daemon.switches.now_s - begin_s) == (1, 10.0)
    daemon.switches.reload_asked = False
    await run(config, daemon)
    assert daemon.parts.state.trials_begun == 2
    assert daemon.switches.now_s - begin_s == pytest.approx(60.0, abs=2.0)


# --- however a trial ends


@pytest.mark.parametrize(
    ("ends", "gone", "raises"),
    [
        (None, False, None),
        (GONE, False, EngineAbsentError),
        (EngineError("refused", ""), False, None),
        (EngineError("refused", ""), True, EngineAbsentError),
        (OSError(24, "Too many open files"), False, None),
        (ConfigError("wrong", ""), False, None),
        (asyncio.CancelledError(), False, DrainedError),  # only a drain cancels a trial alone
        (RuntimeError("a bug"), False, RuntimeError),
    ],
)
async def test_every_end_of_a_trial_corrects_the_budget(
    config: Config, ends: BaseException | None, gone: bool, raises: type[BaseException] | None
) -> None:
    daemon = await fake_daemon(config, trials=1)
    daemon.node.endings = [{"ends": ends, "started": None if ends is None else STARTED}]

    def goes() -> None:
        daemon.node.gone = gone

    daemon.switches.at(0.1, goes)
    if raises is None or raises is DrainedError:
        await run(config, daemon)
    else:
        with pytest.raises(raises):
            await run(config, daemon)
    assert await charged(config) == [1, PLANNED if ends is None else STARTED]
    assert daemon.parts.ledger._budget._open is None
    assert daemon.node.calls[-1] == "close"


async def test_a_signal_in_mid_trial_corrects_the_budget_after_the_trials_clean_up(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.node.endings = [{"forever": True, "started": STARTED}]
    session = asyncio.ensure_future(run(config, daemon))
    daemon.switches.at(5.0, session.cancel)  # the first wait is that of the trial
    with pytest.raises(asyncio.CancelledError):
        await session
    assert await charged(config) == [1, STARTED]
    assert daemon.node.calls[-1] == "close"


async def test_a_failed_trial_is_reported_cleaned_up_and_followed_by_the_next(config: Config) -> None:
    daemon = await fake_daemon(config, trials=2)
    daemon.node.endings = [{"ends": EngineError("the image is gone", "pull it")}]
    await run(config, daemon)
    assert daemon.recorder.of(TrialFailed) == [TrialFailed("the image is gone", "pull it")]
    assert daemon.node.calls == ["open", "trial", "recover", "trial", "tidy", "close"]
    assert daemon.armed.proofs == 0


async def test_a_refused_reading_repeats_the_control(config: Config) -> None:
    daemon = await fake_daemon(config, trials=1)
    daemon.node.endings = [{"ends": ObserveError("BPF map cells: lookup failed (EPERM)", "CAP_BPF")}]

    async def prove() -> None:
        daemon.armed.control = Control(passed=False, detail="0 of 23", cpus=(0,))

    daemon.armed.prove = prove
    await run(config, daemon)
    names = daemon.recorder.names(Beat, GuardCalm)
    assert names.index("TrialFailed") < names.index("ControlChanged")
    assert daemon.recorder.of(ControlChanged) == [ControlChanged(False, "0 of 23", (0,))]
    assert "recover" in daemon.node.calls


async def test_two_failed_trials_in_a_row_make_the_condition_unknown(config: Config) -> None:
    daemon = await fake_daemon(config, trials=5)
    daemon.node.endings = [{}, {}, {}, {"ends": OSError("full")}, {"ends": OSError("full")}]
    await run(config, daemon)
    watch = daemon.parts.watch
    assert (watch.condition, watch.reasons) == ("unknown", ("containers_failed",))
    assert daemon.recorder.names(Beat, GuardCalm)[-2:] == ["TrialFailed", "ContainersFailed"]


async def test_a_drain_ends_the_trial_and_is_reported(config: Config) -> None:
    daemon = await fake_daemon(config, trials=2)
    daemon.node.endings = [{"forever": True, "started": STARTED}]
    daemon.switches.at(1.0, lambda: daemon.switches.drain("file"))
    daemon.switches.at(100.0, lambda: daemon.switches.drain(""))
    await run(config, daemon)
    assert daemon.recorder.names(Beat, GuardCalm, Reaped) == ["TrialsOff", "Drained", "Undrained", "TrialTaken"]
    assert daemon.recorder.of(TrialFailed) == []
    assert await charged(config) == [1, STARTED, PLANNED]
    assert daemon.switches.now_s == pytest.approx(1100.0, abs=2.0)


async def test_a_trial_that_ends_while_a_signal_comes_is_still_in_the_evidence(config: Config) -> None:
    daemon = await fake_daemon(config)
    take = daemon.parts.watch.take

    async def slowly(trial: Trial) -> TrialOutcome:
        session.cancel()
        await asyncio.sleep(0.02)
        return await take(trial)

    daemon.parts.watch.take = slowly  # type: ignore[method-assign]
    session = asyncio.ensure_future(run(config, daemon))
    with pytest.raises(asyncio.CancelledError):
        await session
    assert len(daemon.recorder.of(TrialTaken)) == 1
    assert daemon.parts.watch.evidence.state.trials == 1


# --- however a start ends


@pytest.mark.parametrize("begun", [0, 1])
@pytest.mark.parametrize("ends", [GONE, EngineError("refused", ""), OSError(28, "full"), asyncio.CancelledError()])
async def test_every_end_of_a_start_corrects_the_budget(config: Config, begun: int, ends: BaseException) -> None:
    daemon = await fake_daemon(config)
    daemon.node.begun_at_start, daemon.node.start_fails = begun, [ends]
    with pytest.raises(type(ends)):
        await run(config, daemon)
    assert sum(await charged(config)) == begun
    assert daemon.parts.ledger._budget._open is None
    assert daemon.parts.state.engine is None


async def test_the_warm_up_is_charged_before_the_engine_is_asked(config: Config) -> None:
    daemon = await fake_daemon(config)
    on_disk: list[list[int]] = []

    async def on_open() -> None:
        on_disk.append(await charged(config))

    daemon.node.on_open, daemon.node.start_fails = on_open, [GONE]
    with pytest.raises(EngineAbsentError):
        await run(config, daemon)
    assert on_disk == [[1]]


# --- the engine


async def test_a_lost_engine_is_reported_before_the_slow_clean_up_and_hurried(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.node.endings = [{"ends": GONE}]
    reported_at_close: list[int] = []

    async def on_close() -> None:
        reported_at_close.append(len(daemon.recorder.of(EngineLost)))

    daemon.node.on_close = on_close
    with pytest.raises(EngineAbsentError):
        await run(config, daemon)
    assert reported_at_close == [1]
    assert daemon.node.calls == ["open", "trial", "shorten_timeouts", "close"]
    assert daemon.parts.state.backoff.waiting


async def test_another_engine_ends_the_session_and_the_next_reports_it(config: Config) -> None:
    daemon = await fake_daemon(config, trials=2)

    def upgrade() -> None:
        daemon.node.engine = replace(DOCKER, version="29")

    daemon.switches.at(0.1, upgrade)
    await run(config, daemon)
    assert daemon.parts.state.trials_begun == 1
    await run(config, daemon)
    assert daemon.recorder.of(EngineFound) == [EngineFound("docker 29", 0.0)]
    assert daemon.parts.state.engine == replace(DOCKER, version="29")


async def test_the_next_session_asks_for_the_engine_that_answered(config: Config) -> None:
    """`auto` does not fall back to a runtime while Docker restarts, and a nameless engine keeps its name."""
    daemon = await fake_daemon(config, trials=2)
    daemon.switches.at(0.1, daemon.switches.reload)
    await run(config, daemon)
    daemon.switches.reload_asked = False
    await run(config, daemon)
    first, second = daemon.node.openings
    assert (first.config.engine.kind, first.known) == (EngineKind.AUTO, None)
    assert second.config.engine.kind is EngineKind.DOCKER
    assert second.known == ("docker 28", "runc 1")


async def test_after_a_restart_the_engine_is_known_from_the_history(config: Config) -> None:
    await run(config, await fake_daemon(config, trials=1))
    again = await fake_daemon(config, trials=1)
    await run(config, again)
    (opening,) = again.node.openings
    assert opening.known is not None
    assert opening.known.engine.startswith("docker ")


async def test_what_the_set_up_remarks_is_reported(config: Config) -> None:
    daemon = await fake_daemon(config, trials=1)
    daemon.node.losses = (Loss(Lost.WAITS, "no probe", "boot another"),)
    knob = Remark(RemarkKind.KNOB_IGNORED, "a knob is ignored")
    daemon.node.endings = [{"remarks": [knob]}]
    await run(config, daemon)
    lost = "no probe; lost: waits for slab_mutex; fix: boot another"
    assert [event.remark.text for event in daemon.recorder.of(Remarked)] == [lost, "a knob is ignored"]


# --- before anything is started


async def test_a_drained_node_starts_nothing_and_sweeps_once(config: Config) -> None:
    daemon = await fake_daemon(config, trials=1)
    daemon.switches.drain("file")
    daemon.switches.at(60.0, lambda: daemon.switches.drain(""))
    await run(config, daemon)
    assert daemon.node.calls == ["sweep", "open", "trial", "tidy", "close"]
    assert daemon.recorder.of(Reaped)[0] == Reaped(3)
    assert daemon.recorder.of(TrialsOff) == [TrialsOff(None)]


async def test_a_session_that_starts_drained_is_off(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.switches.drain("file")
    for _ in range(2):
        daemon.switches.at(10.0, daemon.switches.reload)
        await run(config, daemon)
        daemon.switches.reload_asked = False
    assert [event.reason for event in daemon.recorder.of(TrialsOff)] == [None, Off.DRAINED]
    assert len(daemon.recorder.of(Drained)) == 1
    assert daemon.node.calls == ["sweep"]


@pytest.mark.parametrize("passive", [True, False])
async def test_leftovers_that_the_engine_does_not_remove_yet_are_swept_again_a_minute_later(
    config: Config, passive: bool
) -> None:
    """A passive daemon never looked again."""
    config = replace(config, workload=WorkloadConfig(enabled=not passive))
    daemon = await fake_daemon(config)
    daemon.node.leftovers_stay = 2
    daemon.switches.drain("file")
    daemon.switches.at(400.0, daemon.switches.reload)
    session = PassiveSession(config, daemon.parts) if passive else ExperimentSession(config, daemon.parts)
    await asyncio.wait_for(session.run(), 60)
    assert daemon.node.calls.count("sweep") == 3
    assert daemon.recorder.of(Reaped) == [Reaped(3)]


async def test_a_sweep_without_an_engine_is_left_to_the_rig(config: Config) -> None:
    daemon = await fake_daemon(config, trials=1)
    daemon.node.sweeps_fail = True
    daemon.switches.drain("file")
    daemon.switches.at(60.0, lambda: daemon.switches.drain(""))
    await run(config, daemon)
    assert daemon.node.calls.count("sweep") == 1
    assert "open" in daemon.node.calls


async def test_a_reload_before_the_start_opens_nothing(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.switches.reload()
    await run(config, daemon)
    assert daemon.node.calls == []
    assert await charged(config) == []


async def test_a_lock_that_was_removed_is_held_again(config: Config) -> None:
    daemon = await fake_daemon(config, trials=2)
    daemon.lock.removed = True
    await run(config, daemon)
    (restored,) = daemon.recorder.of(Restored)
    assert "/nowhere/lock" in restored.what


# --- passive


async def test_passive_mode_starts_nothing_and_sums_up(config: Config) -> None:
    config = replace(config, workload=WorkloadConfig(enabled=False), service=ServiceConfig(summary_period_s=60.0))
    daemon = await fake_daemon(config)
    daemon.switches.at(11.0, daemon.switches.reload)
    await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
    assert daemon.node.calls == ["sweep", *["look"] * 6, "passive closed"]
    assert daemon.recorder.names(Beat)[:3] == ["TrialsOff", "GuardCalm", "Reaped"]
    assert daemon.recorder.of(TrialsOff) == [TrialsOff(Off.PASSIVE)]
    assert [event.fields["period_s"] for event in daemon.recorder.of(PassiveSummary)] == [60.0, 60.0]
    assert daemon.notifier.statuses[:2] == [
        "passive: watching containers that others start",
        "unknown; passive: 0 containers started by others",
    ]
    assert daemon.parts.watch.more_containers is None


async def test_what_passive_mode_sees_steps_the_evidence_and_only_alarms_are_reported(config: Config) -> None:
    """A broadcast for each container of others: an alarm after nine looks. No trial is reported."""
    config = replace(config, workload=WorkloadConfig(enabled=False))
    daemon = await fake_daemon(config)
    look = Look(containers=3, cgroups=30, own=3)
    daemon.node.records = [
        replace(trial(count=0), trial_id=f"{number:08x}", containers=(), canary=None, looks=(look,))
        for number in range(12)
    ]
    daemon.switches.at(60.0, daemon.switches.reload)
    await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
    taken = daemon.recorder.of(PassiveTaken)
    raised = [change.kind for event in taken for change in event.outcome.changes]
    assert (len(taken), raised) == (12, [ChangeKind.RAISED])
    assert daemon.recorder.of(TrialTaken) == []
    assert daemon.parts.watch.condition is Condition.BROADCASTING
    assert daemon.parts.watch.belief().alerted == {AlarmKind.BROADCASTING: ("attributed",)}


async def test_the_status_has_what_passive_mode_counts_for_as_long_as_it_does(config: Config) -> None:
    config = replace(config, workload=WorkloadConfig(enabled=False))
    daemon = await fake_daemon(config)
    seen = []
    daemon.switches.at(6.0, lambda: seen.append(progress_of(config, daemon.parts).others))
    daemon.switches.at(11.0, daemon.switches.reload)
    await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
    assert seen == [OthersStatus(containers=3, containers_at_least=3, by_engine={"docker": 3})]
    assert progress_of(config, daemon.parts).others is None


async def test_a_passive_session_that_lasts_ends_the_back_off(config: Config) -> None:
    """It waits for the engine of no trial, so nothing else would."""
    config = replace(config, workload=WorkloadConfig(enabled=False))
    for lasts_s, waits in ((30.0, [8]), (90.0, [1])):
        daemon = await fake_daemon(config)
        for _ in range(3):
            await daemon.parts.state.backoff.failed(OSError(5, "I/O error"))
        daemon.switches.at(lasts_s, daemon.switches.reload)
        await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
        assert [await daemon.parts.state.backoff.failed(OSError(5, "I/O error"))] == waits


async def test_passive_mode_sweeps_until_an_engine_answers(config: Config) -> None:
    config = replace(config, workload=WorkloadConfig(enabled=False))
    daemon = await fake_daemon(config)
    daemon.node.sweeps_fail = True

    def answers() -> None:
        daemon.node.sweeps_fail = False

    daemon.switches.at(5.0, answers)
    daemon.switches.at(20.0, daemon.switches.reload)
    await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
    assert daemon.node.calls.count("sweep") == 4
    assert daemon.recorder.of(Reaped) == [Reaped(3)]


async def test_passive_mode_ends_a_pause_of_the_guard(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.switches.at(3.0, daemon.switches.reload)
    await asyncio.wait_for(PassiveSession(config, daemon.parts).run(), 60)
    assert GuardCalm() in daemon.recorder.events
