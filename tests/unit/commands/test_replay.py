"""`kickwatch replay`: every verdict again, from a history or from lines."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from captures_as_trials import trials
from kickwatch.commands.replay import replay
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import save
from kickwatch.errors import KickwatchError
from kickwatch.history.backlog import Entry
from kickwatch.history.history import History
from kickwatch.model import Trial
from watching import PACE, serial

HEALTHY, FAULTY, UNKNOWN = 0, 3, 4
UNBUDGETED = ("--set", "budget.preset=stress")  # a trial in 70 s, as in PACE


def lines(path: Path, *records: Trial) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in records))
    return path


def store(directory: Path, *records: Trial) -> Path:
    monitor, history = Monitor(PACE), History(directory)
    state, before = monitor.start(), b""
    for one in records:
        state, outcome = monitor.step(state, one)
        after = save(monitor, state)
        assert history.append(Entry(one, before, outcome, after, PACE)).kept
        before = after
    return history.path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(replay, list(map(str, arguments)))
    if isinstance(result.exception, KickwatchError):
        raise result.exception
    return result


def objects(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("records", "status"),
    [([serial()] * 3, HEALTHY), ([serial(3)] * 3, FAULTY), ([serial(number=3)], UNKNOWN), ([], UNKNOWN)],
)
def test_it_exits_by_the_last_condition(tmp_path: Path, records: list[Trial], status: int) -> None:
    assert run(lines(tmp_path / "t.jsonl", *records)).exit_code == status
    assert run(store(tmp_path, *records) if records else lines(tmp_path / "none", *records)).exit_code == status


def test_a_void_trial_at_the_end_does_not_hide_the_condition(tmp_path: Path) -> None:
    assert run(lines(tmp_path / "t.jsonl", serial(3), serial(void="clock_jumped"))).exit_code == FAULTY


def test_every_verdict_is_told_in_json(tmp_path: Path) -> None:
    *told, end = objects(
        run("--json", *UNBUDGETED, lines(tmp_path / "t.jsonl", serial(number=23), serial(3), serial(3)))
    )
    assert [one["verdict"] for one in told] == ["quiet", "broadcasting", "broadcasting"]
    assert "of the last 7 containers" in told[1]["changes"][0]["text"]  # type: ignore[index]
    assert (end["trials"], end["verdict"], end["schema"]) == (3, "broadcasting", 1)
    assert end["conditions"] == {"broadcasting": ["attributed"]}


def test_text_tells_changes_alone(tmp_path: Path) -> None:
    text = run(*UNBUDGETED, lines(tmp_path / "t.jsonl", *[serial()] * 50, *[serial(3)] * 5)).stdout
    assert len(text.splitlines()) == 9
    assert text.startswith("trial ")
    assert "unknown (insufficient_evidence)" in text.splitlines()[0]
    assert "broadcasting raised: 7 of the last 7 containers" in text
    assert "55 trials, 0 of them void; final verdict: broadcasting" in text


def test_a_history_says_again_what_it_said(tmp_path: Path) -> None:
    path = store(tmp_path / "state", *[serial(number % 4) for number in range(20)])
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    first, second = objects(run("--json", path)), objects(run("--json", copy))
    assert first == second
    assert first[-1]["otherwise"] == 0
    assert "otherwise" not in run(copy).stdout


def test_another_outcome_than_the_one_kept_is_told(tmp_path: Path) -> None:
    monitor, history = Monitor(PACE), History(tmp_path)
    state, outcome = monitor.step(monitor.start(), serial())
    other = msgspec.structs.replace(outcome, reasons=("blind",))
    history.append(Entry(serial(), b"", other, save(monitor, state), PACE))
    assert "for 1 trials the stored outcome differs" in run(history.path).stdout


def test_a_sentence_in_other_words_is_the_same_outcome(tmp_path: Path) -> None:
    """Alarms recorded by an earlier release must not look as if they were judged otherwise."""
    monitor, history = Monitor(PACE), History(tmp_path)
    faulty = serial(3)
    state, outcome = monitor.step(monitor.start(), faulty)
    (change,) = outcome.changes
    for text, stream in (("an older sentence", change.stream), (change.text, "another")):
        other = msgspec.structs.replace(change, text=text, stream=stream)
        kept = msgspec.structs.replace(outcome, changes=(other,))
        history.append(Entry(faulty, b"", kept, save(monitor, state), PACE))
    assert objects(run("--json", history.path))[-1]["otherwise"] == 1


def test_the_pace_of_lines_is_the_configurations(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", serial(3))
    thresholds = [
        objects(run("--json", path, *UNBUDGETED, "--set", f"trial.interval_s={seconds}"))[0]["changes"][0]["threshold"]  # type: ignore[index]
        for seconds in (60, 600)
    ]
    assert thresholds[0] > thresholds[1] > 1e9


def test_the_pace_of_a_history_is_its_own(tmp_path: Path) -> None:
    path = store(tmp_path, serial(3))
    first, other = (objects(run("--json", path, "--set", f"trial.interval_s={seconds}")) for seconds in (60, 600))
    assert first == other


@pytest.mark.parametrize("text", [b"{", b'{"trial_id": 3}\n', b"\xff\n", b"SQLite format 3\0and more" * 100])
def test_what_is_no_record_is_one_line_with_a_remedy(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(text)
    with pytest.raises(KickwatchError) as raised:
        run(path)
    assert str(path) in raised.value.what
    assert raised.value.remedy


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KickwatchError, match="cannot be read"):
        run(tmp_path / "nothing")


def test_the_recordings_alarm_where_they_should(tmp_path: Path) -> None:
    faults = set()
    for name, one in trials().items():
        status = run(lines(tmp_path / "t.jsonl", one)).exit_code
        assert status in {HEALTHY, FAULTY, UNKNOWN}
        if status == FAULTY:
            faults.add(name.split(":")[0] + ":" + name.split(":")[1][:12])
    assert faults == {
        "4.19-slab-unpatched: loop x100",
        "4.19-slab-docker-unpatched: churn",
        "6.18-slub-docker: memory.kmem",
    }
