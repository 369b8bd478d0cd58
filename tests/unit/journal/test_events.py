"""Code, schema, catalog and docs/events.md say the same of every event, and real records are valid by the schema."""

import ast
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import structlog
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from beliefs import believing
from builders import TLB, containers, kick, trial, wait, window, with_isolated
from kickwatch.configuration.types import Config, StateConfig
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import Change, ChangeKind, TrialOutcome
from kickwatch.detect.verdict import ReasonedVerdict, judge
from kickwatch.journal.alert import Alert
from kickwatch.journal.events import RATE, RATES, Event
from kickwatch.journal.journal import (
    EVENT_SCHEMA,
    PRIORITIES,
    STREAM_WAIT_MS,
    configure_logging,
    logger,
)
from kickwatch.journal.native import FULL_WAIT_MS, field_name
from kickwatch.journal.remark import Remark
from kickwatch.journal.remark import RemarkKind as Remarks
from kickwatch.model import (
    AlarmKind,
    CanaryBatch,
    ContentionRung,
    Control,
    Interrupts,
    IpiRung,
    KmemAccounting,
    Observers,
    Origin,
    Trial,
    Verdict,
)
from kickwatch.model import Path as KernelPath
from kickwatch.outlets.belief import belief_fields
from kickwatch.outlets.bill import Bill
from kickwatch.outlets.changes import alerts
from kickwatch.outlets.journal_outlet import JournalOutlet
from kickwatch.outlets.one_run import alerts_of
from kickwatch.outlets.outlet import Outlets
from kickwatch.service.evidence import Evidence
from kickwatch.service.watch import Watch

ROOT = Path(__file__).parents[3]
CATALOG = ROOT / "systemd/kickwatch.catalog"
HEADERS = ["Subject", "Defined-By", "Support", "Documentation"]
SCHEMA: dict[str, Any] = json.loads(
    resources.files("kickwatch.journal").joinpath("events.schema.json").read_text("utf-8")
)
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def short(event: Event) -> str:
    return event.removeprefix("kickwatch.")


def documented(event: Event) -> set[str]:
    """The keys an event may have by the schema, without those that every record has."""
    definition = DEFINITIONS[short(event)]
    keys = set(definition["properties"]) - {"event", "level"}
    return keys | set(DEFINITIONS["change"]["properties"]) if "$ref" in definition else keys


def required(event: Event) -> set[str]:
    return set(DEFINITIONS[short(event)].get("required", ()))


def levels(event: Event) -> list[str]:
    named: list[str] = DEFINITIONS[short(event)]["properties"]["level"]["enum"]
    return named


def logged(*told: Alert) -> list[dict[str, Any]]:
    """The records as the log has them."""
    stream = io.StringIO()
    configure_logging(form="json", stream=stream)
    for alert in told:
        getattr(logger(), alert.level)(alert.event, **alert.fields)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def assert_valid(record: dict[str, Any]) -> None:
    """By the definition of its event first: the reason is plainer there."""
    name = record["event"].removeprefix("kickwatch.")
    part = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS})
    assert [error.message for error in part.iter_errors(record)] == []
    assert [error.message for error in VALIDATOR.iter_errors(record)] == []
    assert record.keys() <= documented(Event(record["event"])) | set(SCHEMA["properties"])


# --- the schema


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"]["const"] == EVENT_SCHEMA
    assert SCHEMA["$id"].endswith(f":{EVENT_SCHEMA}")
    assert set(SCHEMA["properties"]["priority"]["enum"]) == set(PRIORITIES.values())


def test_every_event_has_a_definition_with_typed_and_explained_keys() -> None:
    assert [short(event) for event in Event] == [one["$ref"].removeprefix("#/$defs/") for one in SCHEMA["oneOf"]]
    assert set(DEFINITIONS) == {short(event) for event in Event} | {"change"}
    for event in Event:
        definition = DEFINITIONS[short(event)]
        assert definition["properties"]["event"] == {"const": event.value}
        assert required(event) <= documented(event)
        for key, typed in definition["properties"].items():
            assert key in {"event", "level"} or {"type", "description"} <= typed.keys(), f"{event}: {key}"


def test_a_wrong_record_is_refused() -> None:
    (good,) = logged(Alert("warning", Event.PAUSED, {"reasons": ["cpu"], "what": "cpu 60 %"}))
    assert_valid(good)
    assert VALIDATOR.is_valid(good | {"a_key_of_tomorrow": 1})
    for wrong in (
        {"reasons": "cpu"},
        {"reasons": []},
        {"what": 1},
        {"schema": 2},
        {"event": "kickwatch.unheard_of"},
        {"level": "info"},
        {"suppressed": 0},
    ):
        assert not VALIDATOR.is_valid(good | wrong), wrong
    for key in ("reasons", "what", "schema", "timestamp", "level"):
        assert not VALIDATOR.is_valid({name: value for name, value in good.items() if name != key}), key


# --- real records


def faulty(number: int) -> Trial:
    lives = tuple(replace(life, creation_path_broadcasts=3) for life in containers(4))
    return replace(trial(kick(12), containers=lives), trial_id=f"{number:08x}")


def healthy(number: int) -> Trial:
    lives = tuple(replace(life, creation_path_broadcasts=0) for life in containers(23))
    return replace(trial(containers=lives), trial_id=f"{number:08x}")


def test_the_alerts_of_a_watch_from_alarm_to_recovery_are_valid() -> None:
    monitor = Monitor(Pace(23, 70.0))
    state, told, recent = monitor.start(), list[Alert](), list[Trial]()
    trials = [*map(faulty, range(6)), *map(healthy, range(6, 60))]
    for one in [*trials, replace(healthy(60), node=replace(one_node(), kernel="6.19.0"))]:
        state, outcome = monitor.step(state, one)
        recent = [*recent[-2:], one]
        told += alerts(outcome, recent)
    records = logged(*told)
    assert {"kickwatch.broadcast_detected", "kickwatch.broadcast_ended", "kickwatch.evidence_dropped"} <= {
        record["event"] for record in records
    }
    for record in records:
        assert_valid(record)


def one_node() -> Any:
    return trial().node


@pytest.mark.parametrize("alarm", list(AlarmKind))
@pytest.mark.parametrize("kind", list(ChangeKind))
def test_every_change_of_every_alarm_is_valid(alarm: AlarmKind, kind: ChangeKind) -> None:
    change = Change(
        kind=kind,
        alarm=alarm,
        stream="attributed",
        text="8 of the last 8 containers",
        evidence="5.3e8",
        threshold=1.1e11,
        first_trial="0badcafe",
        observations=8,
        hits=8,
    )
    outcome = TrialOutcome(trial="0badcafe", verdict=Verdict.BROADCASTING, changes=(change,))
    one = trial(kick(12), churn=window("churn", TLB, kick(9), waits=(wait(),)))
    for recent in (one, with_isolated(one), replace(one, isolated_cpus=(2, 3))):
        (record,) = logged(*alerts(outcome, [recent]))
        assert_valid(record)


@pytest.mark.parametrize(
    "one",
    [
        trial(kick(32 * 23)),
        trial(canary=CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(kick(500),))),
        trial(churn=window("churn", TLB, waits=(wait(70),))),
        trial(churn=window("churn", TLB, waits=(replace(wait(70), max_wait_ns=0),))),
        trial(kick(32 * 23), slab_mutex_known=False),
        trial(
            churn=window("churn"),
            observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE),
            canary=CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=1500, tlb=0)),
        ),
    ],
)
def test_the_alerts_of_a_single_trial_are_valid(one: Trial) -> None:
    records = logged(*alerts_of([one], judge([one])))
    assert records
    for record in records:
        assert_valid(record)


@pytest.mark.parametrize("reasons", [("broadcasts_elsewhere",), ("creation_path_broadcasts", "broadcasts_elsewhere")])
@pytest.mark.parametrize("isolated", [False, True])
def test_the_alerts_of_a_trial_that_its_pairs_convict_are_valid(reasons: tuple[str, ...], isolated: bool) -> None:
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=reasons, findings=())
    stray = replace(kick(23), origin=Origin.NET, path=KernelPath.OTHER)
    one = with_isolated(trial(stray)) if isolated else trial(stray)
    records = logged(*alerts_of([one], judgement))
    assert len(records) == len(reasons)
    for record in records:
        assert_valid(record)
        assert ("isolated_cpus_hit" in record) is isolated


def test_the_summary_is_valid_with_trials_without_and_in_doubt() -> None:
    bill = Bill()
    told = [bill.take(3600)]
    bill.add(trial(kick(46)), TrialOutcome(trial="a", verdict=Verdict.BROADCASTING))
    bill.add(trial(slab_mutex_known=False, void="cpus_changed"), TrialOutcome(trial="b", verdict=Verdict.UNKNOWN))
    bill.add(trial(kmem_accounting=KmemAccounting.OFF), TrialOutcome(trial="c", verdict=Verdict.UNKNOWN))
    told.append(bill.take(3600))
    believed = belief_fields(believing(condition="unknown", reasons=("stale",), verdict_age_s=1.25))
    records = logged(*(Alert("info", Event.SUMMARY, {**believed, **fields}) for fields in told))
    for record in records:
        assert_valid(record)
    assert records[1]["void"] == {"cpus_changed": 1, "kmem_accounting_off": 1}


async def test_a_history_that_cannot_be_used_is_told_in_a_valid_record(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database " * 100)
    stream = io.StringIO()
    configure_logging(form="json", stream=stream)
    await Evidence.open(replace(Config(), state=StateConfig(directory=str(tmp_path))))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["event"] for record in records] == ["kickwatch.history_trouble"]
    assert_valid(records[0])


class TheEyes:
    """Stands in for the armed observers: only what Watch asks of them between trials."""

    def __init__(self, control: Control) -> None:
        self.control = control


async def test_what_the_watch_says_of_trials_and_controls_is_valid(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logging(form="json", stream=stream)
    eyes = TheEyes(Control(passed=False, detail="0 of 23 multi-CPU calls", cpus=(0, 1)))
    evidence = await Evidence.open(replace(Config(), state=StateConfig(directory=str(tmp_path))))
    watch = Watch(eyes, evidence, Outlets([JournalOutlet()]).report)  # type: ignore[arg-type]
    await watch.check_control()
    await watch.remark(Remark(kind, "in a sentence") for kind in Remarks)
    await watch.take(replace(faulty(0), containers=containers(4, failed=2)))
    await watch.take(replace(faulty(1), void="cpus_changed"))
    eyes.control = Control(passed=True, detail="23 of 23 multi-CPU calls", cpus=(0, 1))
    await watch.check_control()
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [short(Event(record["event"])) for record in records] == [
        "observer_blind",
        "capability_lost",
        "runtime_driven",
        "runtime_driven",
        "seccomp_missing",
        "kubelet_beside",
        "warm_up_failed",
        "knob_ignored",
        "memcg_lingers",
        "trial_finished",
        "trial_void",
        "observer_sees",
    ]
    for record in records:
        assert_valid(record)


# --- the call sites


@cache
def calls() -> list[tuple[str, str, Event, set[str], bool]]:
    """(where, level, event, keys, whether `**` adds more) of each `logger().level(Event.X, ...)` in the package."""
    found = []
    for path in sorted((ROOT / "daemon/kickwatch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_logging(node):
                event = node.args[0]
                assert isinstance(event, ast.Attribute), f"{path}:{node.lineno}: name the event, Event.X"
                assert isinstance(node.func, ast.Attribute)
                keys = {word.arg for word in node.keywords if word.arg}
                more = any(word.arg is None for word in node.keywords)
                found.append((f"{path.name}:{node.lineno}", node.func.attr, Event[event.attr], keys, more))
    return found


def _is_logging(call: ast.Call) -> bool:
    made_by = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(made_by, ast.Call) and isinstance(made_by.func, ast.Name) and made_by.func.id == "logger"


def test_every_call_has_the_level_and_the_keys_of_the_schema() -> None:
    assert len(calls()) >= 10
    for where, level, event, keys, more in calls():
        assert level in levels(event), f"{where}: {event} is {levels(event)}"
        assert keys <= documented(event), f"{where}: {event} has no {sorted(keys - documented(event))}"
        assert more or required(event) <= keys, f"{where}: {event} needs {sorted(required(event) - keys)}"


def test_every_event_is_logged_somewhere() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "daemon/kickwatch").rglob("*.py")
        if path.name != "events.py"
    )
    assert [event for event in Event if not re.search(rf"\bEvent\.{event.name}\b", sources)] == []


# --- the catalog


@cache
def catalog() -> dict[str, tuple[dict[str, str], str]]:
    """Headers and text by MESSAGE_ID, as `journalctl --update-catalog` reads them; refuses what that would refuse."""
    entries: dict[str, tuple[dict[str, str], list[str]]] = {}
    headers: dict[str, str] = {}
    body: list[str] = []
    in_headers = False
    for line in CATALOG.read_text(encoding="utf-8").splitlines():
        if line.startswith(("#", ";")):
            assert not entries, f"lost as a comment: {line}"
        elif begun := re.fullmatch("-- ([0-9a-f]{32})", line):
            headers, body, in_headers = {}, [], True
            assert begun[1] not in entries
            entries[begun[1]] = (headers, body)
        elif in_headers and line:
            name, _, value = line.partition(": ")
            headers[name] = value
        elif in_headers:
            in_headers = False
        else:
            assert entries or not line
            body.append(line)
    return {message_id: (told, "\n".join(text).strip()) for message_id, (told, text) in entries.items()}


def test_the_catalog_explains_every_event_and_nothing_else() -> None:
    assert list(catalog()) == [event.message_id for event in Event]
    for headers, text in catalog().values():
        assert list(headers) == HEADERS
        assert headers["Defined-By"] == "kickwatch"
        assert text
    subjects = [headers["Subject"] for headers, _ in catalog().values()]
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize("event", list(Event))
def test_the_catalog_names_only_fields_that_are_always_there(event: Event) -> None:
    always = {field_name(key) for key in required(event)}
    _, text = catalog()[event.message_id]
    assert set(re.findall("@([A-Z0-9_]+)@", text)) <= always
    if event is not Event.STOPPED and required(event):
        assert "@KICKWATCH_" in text


@pytest.mark.parametrize(
    "event",
    [*(event for event in Event if event.endswith("_detected")), Event.ISOLATION_BROKEN, Event.OBSERVER_BLIND],
)
def test_the_catalog_says_what_an_alert_means_how_to_confirm_it_and_what_to_do(event: Event) -> None:
    _, text = catalog()[event.message_id]
    parts = [text.index(part) for part in ("What it means:", "How to confirm:", "What to do:")]
    assert parts == sorted(parts)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="no journalctl to compile the catalog with")
def test_journalctl_takes_the_catalog_as_it_is(tmp_path: Path) -> None:
    for directory in ("usr/lib/systemd/catalog", "var/lib/systemd/catalog"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(CATALOG, tmp_path / "usr/lib/systemd/catalog")
    journalctl = ["journalctl", f"--root={tmp_path}"]
    updated = subprocess.run([*journalctl, "--update-catalog"], capture_output=True, text=True, check=True)
    assert updated.stderr == ""
    dumped = subprocess.run([*journalctl, "--dump-catalog"], capture_output=True, text=True, check=True).stdout
    for message_id, (headers, text) in catalog().items():
        assert f"-- {message_id}\nSubject: {headers['Subject']}\n" in dumped
        assert text in dumped


# --- docs/events.md


@cache
def page() -> str:
    return (ROOT / "docs/events.md").read_text(encoding="utf-8")


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables of events in a part of the page, by name."""
    rows = {}
    for line in text.splitlines():
        if line.startswith("| `kickwatch."):
            name, *rest = [cell.strip() for cell in line.strip("|").split(" | ")]
            name = name.strip("` ")
            assert name not in rows
            rows[name] = rest
    return rows


def test_every_event_has_an_action_and_a_warning_needs_one() -> None:
    for event in Event:
        action = DEFINITIONS[short(event)]["x-action"]
        assert action, event
        assert levels(event) == ["info"] or action != "none", event


def test_the_page_has_every_event_as_it_is() -> None:
    rows = table_rows(page().split("## Appendix")[0])
    assert set(rows) == {event.value for event in Event}
    for event in Event:
        definition = DEFINITIONS[short(event)]
        assert rows[event.value] == [", ".join(levels(event)), definition["description"], definition["x-action"]]


def test_the_appendix_has_the_id_and_the_keys_of_every_event() -> None:
    rows = table_rows(page().split("## Appendix")[1])
    assert set(rows) == {event.value for event in Event}
    for event in Event:
        message_id, keys = rows[event.value]
        assert message_id == f"`{event.message_id}`"
        assert ("*of a change*" in keys) == ("$ref" in DEFINITIONS[short(event)])
        own = set(DEFINITIONS[short(event)]["properties"]) - {"event", "level"}
        shown = {key: bool(doubt) for key, doubt in re.findall(r"`(\w+)`(\??)", keys)}
        assert shown == {key: key not in required(event) for key in own}, event


def test_the_record_on_the_page_is_valid() -> None:
    record = json.loads(page().split("```json")[1].split("```")[0])
    assert record["event"] == Event.BROADCAST_DETECTED
    assert_valid(record)


def test_the_page_has_the_keys_of_every_record_and_of_a_change() -> None:
    for properties in (SCHEMA["properties"], DEFINITIONS["change"]["properties"]):
        for key, typed in properties.items():
            assert f"| `{key}` | {typed.get('description', '')}" in page()


def test_the_page_names_ids_and_rates_as_they_are() -> None:
    assert set(re.findall(r"\b[0-9a-f]{32}\b", page())) == {event.message_id for event in Event}
    assert f"MESSAGE_ID={Event.BROADCAST_DETECTED.message_id}" in page()
    trials = RATES[Event.TRIAL_FINISHED]
    assert (
        f"Of each event {RATE.burst} records may be logged at once and one more every {RATE.period_s:.0f} s" in page()
    )
    assert f"of `kickwatch.trial_finished` {trials.burst}, and one more every {trials.period_s:.0f} s" in page()
    assert f"its queue stays full for {FULL_WAIT_MS} ms" in page()
    assert f"does not read for {STREAM_WAIT_MS} ms" in page()
