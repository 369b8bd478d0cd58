"""The log: every event of the daemon becomes the record that docs/events.md documents."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from beliefs import believing
from builders import containers, kick, trial
from kickwatch.configuration.types import Config, LogConfig
from kickwatch.detect.state import Change, ChangeKind, TrialOutcome
from kickwatch.journal.journal import Event, configure_logging, logger
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import AlarmKind, Condition, Verdict
from kickwatch.node.pressure import Cause
from kickwatch.outlets import events
from kickwatch.outlets.journal_outlet import JournalOutlet

CAUSES = (Cause.LOAD, Cause.DISK)
OUTCOME = TrialOutcome(trial="0badcafe", verdict=Verdict.QUIET)
ALARM = Change(kind=ChangeKind.RAISED, alarm=AlarmKind.BROADCASTING, stream="attributed", text="8 of 8")
FAILED = trial(containers=containers(0, failed=4))
STARTED = events.Started(
    version="1",
    kernel="6.18.0",
    cpus_online=2,
    observers={"ipis": "csd", "contention": "tracepoint"},
    losses=("no probe",),
    config_digest="0123456789ab",
    budget={"preset": "sentinel"},
    mode="experiment",
)


def taken(**changed: Any) -> events.TrialTaken:
    usual = {"trial": trial(), "outcome": OUTCOME, "recent": (trial(),), "verdict_age_s": 1.25, "figures": {}}
    return events.TrialTaken(**{**usual, **changed})


def paused(phase: events.PausePhase) -> events.GuardPaused:
    return events.GuardPaused(phase, CAUSES, 1.0, 7.04, "load 9 (limit 4)")


async def logged(*reported: events.OutletEvent) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as logs:
        for event in reported:
            await JournalOutlet().take(event)
    return [dict(log) for log in logs]


@pytest.mark.parametrize(
    ("event", "name", "level", "fields"),
    [
        (STARTED, Event.STARTED, "info", {"losses": ["no probe"], "mode": "experiment", "cpus_online": 2}),
        (events.Reloaded(("a: 1 -> 2",)), Event.RELOADED, "info", {"changed": ["a: 1 -> 2"]}),
        (events.ReloadRefused("a", "b"), Event.RELOAD_REFUSED, "error", {"what": "a", "remedy": "b"}),
        (events.ConfigWarning("a"), Event.CONFIG_WARNING, "warning", {"what": "a"}),
        (events.ControlChanged(False, "0 of 23", (0, 1)), Event.OBSERVER_BLIND, "error", {"what": "0 of 23"}),
        (events.ControlChanged(True, "23 of 23", (0, 1)), Event.OBSERVER_SEES, "info", {"cpus": [0, 1]}),
        (events.VerdictStale(90_000.04), Event.VERDICT_STALE, "warning", {"verdict_age_s": 90_000.0}),
        (events.VerdictFresh(Condition.QUIET), Event.VERDICT_FRESH, "info", {"condition": "quiet"}),
        (
            events.Remarked(Remark(RemarkKind.KNOB_IGNORED, "a knob")),
            Event.KNOB_IGNORED,
            "warning",
            {"what": "a knob"},
        ),
        (events.TrialFailed("a", "b"), Event.TRIAL_FAILED, "error", {"what": "a", "remedy": "b"}),
        (events.SessionFailed("a", "b", 4.0), Event.TRIAL_FAILED, "error", {"what": "a", "retry_s": 4.0}),
        (events.ContainersFailed("a", "b", 4, 5), Event.CONTAINERS_FAILED, "warning", {"failed": 4, "containers": 5}),
        (events.ContainersRun(4, 1), Event.CONTAINERS_RUN, "info", {"containers": 4, "failed": 1}),
        (events.EngineLost("a", "b", 1.0), Event.ENGINE_LOST, "error", {"what": "a", "remedy": "b", "retry_s": 1.0}),
        (events.EngineFound("docker 28", 7.5), Event.ENGINE_FOUND, "info", {"engine": "docker 28", "lost_s": 7.5}),
        (events.Restored("the lock"), Event.RESTORED, "info", {"what": "the lock"}),
        (events.Drained("file"), Event.DRAINED, "info", {"by": "file"}),
        (events.Undrained("file"), Event.UNDRAINED, "info", {"by": "file"}),
        (paused(events.PausePhase.BEGAN), Event.PAUSED, "warning", {"reasons": ["load", "disk"]}),
        (paused(events.PausePhase.ENDED), Event.RESUMED, "info", {"paused_s": 7.0}),
        (taken(trial=replace(trial(), void="cpus_changed")), Event.TRIAL_VOID, "warning", {"reason": "cpus_changed"}),
        (taken(), Event.TRIAL_FINISHED, "info", {"verdict": "quiet", "failed": 0, "verdict_age_s": 1.2}),
    ],
)
async def test_an_event_is_one_record(
    event: events.OutletEvent, name: Event, level: str, fields: dict[str, Any]
) -> None:
    (record,) = await logged(event)
    assert (record["event"], record["log_level"]) == (name, level)
    assert {key: record[key] for key in fields} == fields


@pytest.mark.parametrize(
    "event",
    [
        events.GuardCalm(),
        paused(events.PausePhase.CONTINUES),
        events.Reaped(3),
        events.TrialsOff(events.Off.PASSIVE),
        events.EvidenceOpened({}, believing),
        events.Beat(believing(), "", engine_lost=False, budget_unwritten=False),
        events.PassiveSummary(believing(), {}),
    ],
)
async def test_what_only_other_outlets_show_is_not_logged(event: events.OutletEvent) -> None:
    assert await logged(event) == []


async def test_an_alert_follows_its_trial_and_a_void_trial_has_none() -> None:
    alarmed = replace(OUTCOME, verdict=Verdict.BROADCASTING, changes=(ALARM,))
    faulty = trial(kick(12))
    records = await logged(taken(trial=faulty, outcome=alarmed, recent=(faulty,)))
    assert [record["event"] for record in records] == ["kickwatch.trial_finished", "kickwatch.broadcast_detected"]
    assert records[1]["log_level"] == "error"
    assert len(await logged(taken(trial=replace(faulty, void="cpus_changed"), outcome=alarmed))) == 1


async def test_a_trial_names_three_of_its_failures() -> None:
    (record,) = await logged(taken(trial=FAILED))
    assert (record["failed"], len(record["failures"]), record["containers"]) == (4, 3, 0)


@pytest.fixture
def structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("structlog_as_before")
async def test_a_reload_takes_form_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_logging(form="console", stream=stream)
    await JournalOutlet().reload(replace(Config(), log=LogConfig(format="json", level="warning")))
    logger().info(Event.RELOADED, changed=[])
    logger().warning(Event.CONFIG_WARNING, what="odd")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line[line.index("{") :])["what"] == "odd"
    assert stream.getvalue() == ""
