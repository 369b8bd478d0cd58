"""The state machine around the sessions: retries, reloads, signals. Engine, trials and clock are fakes."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from msgspec.structs import replace

from fake_daemon import DOCKER, GONE, FakeDaemon, FakeRig, Recorder, config_in, fake_daemon
from kickwatch.configuration.loading import Loaded
from kickwatch.configuration.types import (
    BudgetConfig,
    Config,
    EngineConfig,
    GuardConfig,
    ServiceConfig,
    TrialConfig,
    WorkloadConfig,
)
from kickwatch.errors import CgroupError, ConfigError, EngineAbsentError, KickwatchError, ObserveError
from kickwatch.experiment.rig import Opening, Rig
from kickwatch.observe.losses import Loss, Lost
from kickwatch.outlets.events import (
    Beat,
    ConfigWarning,
    ControlChanged,
    EngineFound,
    EngineLost,
    EvidenceOpened,
    GuardCalm,
    GuardPaused,
    PausePhase,
    ProgressOpened,
    Reaped,
    Reloaded,
    ReloadRefused,
    Remarked,
    SessionFailed,
    Started,
    TrialsOff,
    TrialTaken,
)
from kickwatch.outlets.outlet import Outlets
from kickwatch.process.signals import TERMINATION, Shutdown, until_signalled
from kickwatch.service.service import Service

QUIETLY = (Beat, GuardCalm, ProgressOpened, TrialsOff, Reaped)
REFUSED_READING = ObserveError("BPF map cells: lookup failed (EPERM)", "CAP_BPF")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


class Served:
    """A service on a fake node. `loads`: what reading the configuration gives or raises."""

    def __init__(self, config: Config, daemon: FakeDaemon) -> None:
        self.daemon, self.node, self.recorder = daemon, daemon.node, daemon.recorder
        self.switches, self.state = daemon.switches, daemon.parts.state
        self.loads: Loaded | Exception = Loaded(config)
        self.shutdown = Shutdown()
        self.service = Service(self._load, config, daemon.parts, daemon.outlets, self.shutdown)

    def _load(self) -> Loaded:
        if isinstance(self.loads, Exception):
            raise self.loads
        return self.loads

    async def run(self) -> None:
        await asyncio.wait_for(self.service.run(), 60)

    def end_at(self, after_s: float) -> None:
        """The next trial after that is the last one."""

        def last() -> None:
            self.state.trials = self.state.trials_begun + 1

        self.switches.at(after_s, last)

    def gone_for(self, seconds: float) -> None:
        self.node.gone = True

        def back() -> None:
            self.node.gone = False

        self.switches.at(seconds, back)

    def reload_at(self, after_s: float, loads: Loaded | Exception) -> None:
        def reload() -> None:
            self.loads = loads
            self.switches.reload()

        self.switches.at(after_s, reload)


async def served(config: Config, trials: int | None = None) -> Served:
    return Served(config, await fake_daemon(config, trials))


async def test_it_starts_makes_its_trials_and_ends(config: Config) -> None:
    one = await served(config, trials=3)
    await one.run()
    assert one.recorder.names(*QUIETLY) == ["Started", "EvidenceOpened", "TrialTaken"]
    (started,) = one.recorder.of(Started)
    assert (started.mode, started.cpus_online, started.observers["ipis"]) == ("experiment", 2, "csd")
    assert len(one.recorder.of(TrialTaken)) == 3
    assert [word for word in one.daemon.notifier.sent if word != "progress"] == ["ready"]


async def test_a_start_with_a_spent_budget_says_when_its_first_trial_begins(config: Config) -> None:
    """A person at a terminal saw nothing for an hour."""
    config = replace(config, budget=BudgetConfig(containers_per_hour=config.workload.containers_per_trial))
    one = Served(config, await fake_daemon(config))
    await one.daemon.parts.ledger.charge(1)
    await one.service._report_start()
    (started,) = one.recorder.of(Started)
    assert 3500 < started.budget["first_trial_in_s"] <= 3600
    assert "containers" in started.budget["why"]


async def test_a_start_within_its_budget_names_no_wait(config: Config) -> None:
    one = Served(config, await fake_daemon(config))
    await one.service._report_start()
    (started,) = one.recorder.of(Started)
    assert "first_trial_in_s" not in started.budget


async def test_a_start_names_what_is_lost_and_reports_each_cause_once(config: Config) -> None:
    """The sentence with cause and remedy was in the record of the start, and in one of its own."""
    one = Served(config, await fake_daemon(config))
    lost = [Loss(lost, "no kprobes", "boot another") for lost in (Lost.REQUESTS, Lost.WAITS)]
    one.daemon.node.losses = (*lost, Loss(Lost.HOLDERS, "no task has waited", "wait for one"))
    await one.service._report_start()
    (started,) = one.recorder.of(Started)
    assert started.losses == ("IPIs by reason", "waits for slab_mutex", "who holds slab_mutex")
    assert [event.remark.text for event in one.recorder.of(Remarked)] == [
        "no kprobes; lost: IPIs by reason, waits for slab_mutex; fix: boot another",
        "no task has waited; lost: who holds slab_mutex; fix: wait for one",
    ]


async def test_nodes_that_booted_together_start_at_different_times(config: Config) -> None:
    one = await served(replace(config, trial=TrialConfig(interval_s=600.0, jitter=0.5)), trials=1)
    await one.run()
    assert one.switches.now_s == pytest.approx(1000.0 + 150.0, abs=1.0)  # half of the jitter's share


async def test_a_failed_control_at_the_start_is_reported(config: Config) -> None:
    one = await served(config, trials=1)
    one.daemon.armed.control = SimpleNamespace(passed=False, detail="0 of 23", cpus=())
    await one.run()
    assert one.recorder.names(*QUIETLY)[:3] == ["Started", "EvidenceOpened", "ControlChanged"]
    assert one.recorder.of(ControlChanged) == [ControlChanged(False, "0 of 23", ())]


# --- waiting and trying again


async def test_an_engine_that_is_gone_is_waited_for(config: Config) -> None:
    one = await served(config)
    one.gone_for(100.0)
    one.end_at(200.0)
    await one.run()
    assert one.recorder.names(*QUIETLY) == [
        "Started",
        "EvidenceOpened",
        "EngineLost",
        "EngineFound",
        "TrialTaken",
    ]
    assert one.recorder.of(EngineLost) == [EngineLost(GONE.what, GONE.remedy, 1.0)]
    (found,) = one.recorder.of(EngineFound)
    assert (found.engine, found.lost_s) == (str(DOCKER), 123.0)  # tried after 1, 3, 7, 15, 31, 63, 123 s
    assert f"unknown; waiting: {GONE}" in one.daemon.notifier.statuses


async def test_beats_show_a_lost_engine_and_feed_the_watchdog(config: Config) -> None:
    one = await served(config)
    one.gone_for(100.0)
    one.end_at(200.0)
    await one.run()
    beats = one.recorder.of(Beat)
    lost = [beat.engine_lost for beat in beats]
    assert lost[: lost.index(False)] == [True] * lost.index(False)
    assert len(lost[: lost.index(False)]) > 50  # every two seconds
    assert not any(lost[lost.index(False) :])
    assert one.daemon.notifier.sent.count("progress") >= len(beats)


async def test_an_engine_lost_in_a_trial_ends_the_session_and_the_next_one_continues(config: Config) -> None:
    one = await served(config)
    one.node.endings = [{}, {"ends": GONE}]
    one.switches.at(0.9, lambda: one.gone_for(10.0))
    one.end_at(60.0)
    await one.run()
    names = one.recorder.names(*QUIETLY)
    assert names[2:6] == ["TrialTaken", "TrialFailed", "EngineLost", "EngineFound"]
    assert one.node.calls.count("close") == 2


async def test_a_reload_ends_the_wait_for_an_engine(config: Config) -> None:
    one = await served(config)
    one.gone_for(1e4)
    one.reload_at(50.0, Loaded(replace(config, engine=EngineConfig(socket="/run/other.sock"))))

    def answers() -> None:
        one.node.gone = False

    one.switches.at(50.1, answers)
    one.end_at(51.0)
    await one.run()
    assert one.recorder.of(Reloaded)
    assert one.node.openings[-1].config.engine.socket == "/run/other.sock"
    assert one.switches.now_s < 1150.0


async def test_a_refused_reading_repeats_the_control_and_the_daemon_continues(config: Config) -> None:
    """Outside a trial: in the warm-up, in passive mode. Any other error proves nothing about the probes."""
    one = await served(config)
    one.node.start_fails = [OSError("disk full"), REFUSED_READING]
    one.end_at(30.0)
    await one.run()
    assert one.daemon.armed.proofs == 1
    assert [event.what for event in one.recorder.of(SessionFailed)] == ["disk full", REFUSED_READING.what]
    assert one.recorder.of(TrialTaken)


@pytest.mark.parametrize("error", [GONE, OSError(28, "full")])
async def test_a_run_of_some_trials_does_not_wait(config: Config, error: KickwatchError | OSError) -> None:
    one = await served(config, trials=3)
    one.node.start_fails = [error]
    with pytest.raises(type(error)):
        await one.run()
    assert one.recorder.of(EngineLost) == one.recorder.of(SessionFailed) == []


async def test_a_configuration_error_ends_the_daemon(config: Config) -> None:
    one = await served(config)
    one.node.start_fails = [ConfigError("engine.kind=oci: runc is missing", "install runc")]
    with pytest.raises(ConfigError):
        await one.run()


# --- reloads


async def test_a_reload_takes_effect_between_two_trials(config: Config) -> None:
    one = await served(config)
    changed = replace(config, workload=WorkloadConfig(containers_per_trial=7))
    one.reload_at(0.1, Loaded(changed, ("unknown key x",)))
    one.end_at(1.0)
    await one.run()
    (reloaded,) = one.recorder.of(Reloaded)
    assert reloaded.changed == ("workload.containers_per_trial: 10 -> 7",)
    assert one.recorder.names(*QUIETLY) == [
        "Started",
        "EvidenceOpened",
        "TrialTaken",
        "ConfigWarning",
        "EvidenceOpened",
        "Reloaded",
        "TrialTaken",
    ]
    assert one.recorder.of(ConfigWarning) == [ConfigWarning("unknown key x")]
    assert one.recorder.of(TrialTaken)[-1].trial.churn.kind == "churn"
    assert len(one.recorder.of(TrialTaken)[-1].trial.containers) == 7
    assert [word for word in one.daemon.notifier.sent if word != "progress"] == ["ready", "reloading", "ready"]
    assert one.node.calls.count("open") == 2
    assert one.recorder.reloads == [changed]


@pytest.mark.parametrize(
    "loads",
    [
        ConfigError("kickwatch.toml: trial.window_s cannot be -1", "give a number"),
        Loaded(Config(workload=WorkloadConfig(containers_per_trial=10_000))),
    ],
)
async def test_an_unusable_configuration_is_refused_and_the_old_one_stays(
    config: Config, loads: Loaded | ConfigError
) -> None:
    one = await served(config)
    one.reload_at(0.1, loads)
    one.end_at(1.0)
    await one.run()
    (refused,) = one.recorder.of(ReloadRefused)
    assert refused.what
    assert refused.remedy
    assert one.recorder.of(Reloaded) == []
    assert len(one.recorder.of(TrialTaken)[-1].trial.containers) == 10
    assert [word for word in one.daemon.notifier.sent if word != "progress"] == ["ready", "reloading", "ready"]


async def test_a_configuration_that_an_outlet_refuses_changes_nothing(config: Config) -> None:
    class Refuses(Recorder):
        async def reload(self, _: Config) -> None:
            raise ConfigError("metrics.listen: in use", "choose another port")

    one = await served(config)
    one.service.outlets = Outlets([one.recorder, Refuses()])
    one.reload_at(0.1, Loaded(replace(config, service=ServiceConfig(drain_file="/run/other"))))
    one.end_at(1.0)
    await one.run()
    assert one.recorder.of(ReloadRefused) == [ReloadRefused("metrics.listen: in use", "choose another port")]
    assert one.switches.drain_file == ""
    assert one.service.config is config


async def test_a_reload_reaches_drain_file_budget_evidence_and_watchdog(config: Config) -> None:
    one = await served(config)
    changed = replace(
        config,
        service=ServiceConfig(drain_file="/run/other", verdict_max_age_s=60.0),
        budget=BudgetConfig(containers_per_hour=77, cpu_share=1.0),
        engine=EngineConfig(timeout_s=300.0),
    )
    one.daemon.notifier.watchdog_s = 180.0
    one.reload_at(0.1, Loaded(changed))
    one.end_at(0.2)
    await one.run()
    assert one.switches.drain_file == "/run/other"
    assert one.daemon.parts.watch.max_age_s == 60.0
    assert one.daemon.parts.ledger._budget.limits.containers_per_hour == 77
    assert one.daemon.notifier.watchdog_s > 600.0
    assert len(one.recorder.of(EvidenceOpened)) == 2


async def test_a_pause_of_the_guard_goes_on_through_a_reload(config: Config) -> None:
    guard = GuardConfig(poll_s=2.0, containers=5, resume_after_s=30.0)
    one = await served(replace(config, guard=guard))
    one.node.readings = replace(one.node.readings, containers=6)
    one.reload_at(20.0, Loaded(replace(config, guard=guard, trial=TrialConfig(window_s=0.5))))

    def calm() -> None:
        one.node.readings = replace(one.node.readings, containers=1)

    one.switches.at(40.0, calm)
    one.end_at(50.0)
    await one.run()
    pauses = one.recorder.of(GuardPaused)
    assert [pause.phase for pause in pauses].count(PausePhase.BEGAN) == 1
    assert [pause.phase for pause in pauses].count(PausePhase.ENDED) == 1
    assert sum(pause.seconds for pause in pauses) == pauses[-1].paused_s == pytest.approx(70.0, abs=4.0)


async def test_a_reload_to_passive_mode_and_back(config: Config) -> None:
    one = await served(config)
    one.reload_at(0.1, Loaded(replace(config, workload=WorkloadConfig(enabled=False))))
    one.reload_at(10.0, Loaded(config))
    one.end_at(11.0)
    await one.run()
    offs = [event.reason for event in one.recorder.of(TrialsOff)]
    assert offs == [None, "passive", None]
    calls = one.node.calls
    assert calls.index("close") < calls.index("look") < calls.index("passive closed") < len(calls) - 1


# --- the end


class StuckCanary:
    """Stands in for a canary whose cgroup cannot be removed."""

    async def __aexit__(self, *_: object) -> None:
        raise CgroupError("/sys/fs/cgroup/kickwatch-canary is in use and stays", "end what is in it")


class StuckOpening(Opening):
    """The real take-down of a rig, with that canary in it and nothing else."""

    async def _set_up(self) -> Rig:
        self._stack.push_async_exit(StuckCanary().__aexit__)
        return SimpleNamespace()  # type: ignore[return-value]


async def test_a_signal_ends_the_daemon_though_the_clean_up_fails(config: Config) -> None:
    """Signals, state machine, session and take-down are the real ones."""
    one = await served(config)

    class Stuck(StuckOpening):
        async def __aenter__(self) -> FakeRig:  # type: ignore[override]
            await super().__aenter__()
            return FakeRig(one.node)

    opened: list[Stuck] = []

    def open_rig(config: Config, _: object) -> Stuck:
        opened.append(Stuck(config, None, lambda: None, one.shutdown))
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        return opened[-1]

    one.node.open_rig = open_rig  # type: ignore[assignment]
    one.node.endings = [{"forever": True}]
    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(until_signalled(one.service.run(), TERMINATION, one.shutdown.begin), 60)
    assert len(opened) == 1
    assert [log["event"] for log in logs] == ["kickwatch.clean_up_failed"]
    assert one.recorder.of(SessionFailed) == []


async def test_an_error_of_the_clean_up_is_no_failed_trial(config: Config) -> None:
    one = await served(config)

    async def on_open() -> None:
        one.shutdown.begin()

    one.node.on_open = on_open
    one.node.start_fails = [OSError("disk full")]
    with pytest.raises(asyncio.CancelledError):
        await one.run()
    assert one.recorder.of(SessionFailed) == []


async def test_the_history_is_closed_however_the_daemon_ends(config: Config) -> None:
    one = await served(config, trials=1)
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    one.daemon.parts.watch.evidence.close = close  # type: ignore[method-assign]
    one.node.start_fails = [GONE]
    with pytest.raises(EngineAbsentError):
        await one.run()
    assert closed == [True]
