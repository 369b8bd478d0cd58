"""What `kickwatch trial` does with the verdict over a faulty trial: at a terminal, on a full disk, under bisect."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from at_a_terminal import AtATerminal
from builders import kick, trial
from command import DIES_WITH_US, CommandResult
from kickwatch.commands.one_trial import Shown, rendered
from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.experiment.own_work import OwnWork, Reached, Work
from kickwatch.model import Trial
from slowness import SLOWNESS

ROOT = Path(__file__).parents[3]
# The real command, with a faulty node's trial in place of an experiment; no other part is replaced.
FAULTY = """
from builders import containers, kick, trial
from msgspec.structs import replace
import kickwatch.commands.one_trial as module
from kickwatch.detect.single import one_shot

async def decided(*_, **__):
    lives = tuple(replace(life, creation_path_broadcasts=3) for life in containers(12))
    trials = [trial(kick(36), containers=lives)]
    return trials, one_shot(trials)

module.decide = decided
from kickwatch.cli import main
main()
"""
COMMAND = (sys.executable, "-c", FAULTY, "trial")
HEADLINE = "3 x kick_all_cpus_sync per container, sent by a kworker"


@pytest.fixture
def environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "tests" / "support")])}


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("form", ["auto", "console", "json"])
def test_verdict_and_alert_at_a_terminal(columns: int, form: str, environment: Mapping[str, str]) -> None:
    with AtATerminal([*COMMAND, "--set", f"log.format={form}"], columns=columns, environment=environment) as command:
        assert command.ended() == 3
    assert "Traceback" not in command.text
    alert, _, verdict = command.text.partition("verdict: broadcasting")  # the answer is what is left on the screen
    assert "asked for by __do_tune_cpucache" in " ".join(verdict.split())
    assert max(map(len, verdict.splitlines())) <= columns
    if form == "auto":  # the alert would say the same again, in 30 lines
        assert "kickwatch." not in alert
        return
    assert "kickwatch.broadcast_detected" in alert
    assert HEADLINE in " ".join(alert.split())
    assert ("\n    stack:\n        smp_call_function_many" in alert) == (form != "json")


def run(line: str, environment: Mapping[str, str]) -> CommandResult:
    """Run a line of bash in which `trial` is that command."""
    script = f'set -o pipefail; trial() {{ "$PYTHON" -c "$FAULTY" trial "$@"; }}; {line}'
    done = subprocess.run(
        [*DIES_WITH_US, "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        env={**environment, "PYTHON": sys.executable, "FAULTY": FAULTY},
        check=False,
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("line", "status", "complaint"),
    [
        ("trial >/dev/full", 1, "No space left on device"),
        ("trial --json >&-", 1, "Bad file descriptor"),
        ("trial | true", 141, ""),
        ("trial --bisect", 1, ""),
        ("trial --bisect >/dev/full", 125, "No space left on device"),
        ("trial --bisect | true", 125, "the reader of standard output has ended"),
    ],
)
def test_the_alert_goes_out_whatever_becomes_of_the_verdict(
    line: str, status: int, complaint: str, environment: Mapping[str, str]
) -> None:
    done = run(line, environment)
    assert done.status == status, done.err
    alert, *rest = done.err.splitlines()
    record = json.loads(alert)
    assert (record["event"], record["headline"]) == ("kickwatch.broadcast_detected", HEADLINE)
    assert len(rest) == bool(complaint)
    assert complaint in "".join(rest)


def test_the_records_are_appended_and_the_bug_report_reads_them(environment: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "faulty.jsonl"
    for times in (1, 2):
        done = run(f"trial --record {file}", environment)
        assert done.status == 3, done.err
        records = [msgspec.json.decode(line, type=Trial) for line in file.read_bytes().splitlines()]
        assert [record.churn.cells[-1].reason for record in records] == ["kick_all_cpus_sync"] * times
    assert done.out.replace("\\\n", "").split()[-4:] == ["kickwatch", "report", "--bug", str(file)]
    assert run(f"trial --record {file} >/dev/full", environment).status == 1
    assert len(file.read_bytes().splitlines()) == 3


def test_a_record_that_cannot_be_written_costs_no_answer(environment: Mapping[str, str]) -> None:
    done = run("trial --record /dev/full", environment)
    assert (done.status, done.out.startswith("verdict: broadcasting")) == (1, True)
    assert "kickwatch: /dev/full cannot be written (No space left on device)" in done.err


def test_a_full_standard_error_does_not_change_the_verdict(environment: Mapping[str, str]) -> None:
    for where in ("/dev/full", "&-"):
        done = run(f"trial 2>{where}", environment)
        assert (done.status, "verdict: broadcasting" in done.out) == (3, True)


@pytest.mark.parametrize("isolated", [(), (2, 3)])
def test_what_kickwatch_sent_to_isolated_cpus_is_in_the_output_where_there_are_some(isolated: tuple[int, ...]) -> None:
    trials = [trial(kick(36), count=12)]
    single = one_shot(trials)
    judgement = ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)
    own = OwnWork(isolated)
    if isolated:
        own.reached[Work.ARMING] = Reached(interrupts=132)
        own.reached[Work.CONTROL] = Reached(requests=0, interrupts=2)
    figures = json.loads(rendered(trials, single, judgement, own, Shown(as_json=True)))["own_work"]
    text = " ".join(rendered(trials, single, judgement, own, Shown()).split())
    if isolated:
        assert figures == {
            "arming": {"requests": None, "interrupts": 132},
            "control": {"requests": 0, "interrupts": 2},
        }
        assert "by any sender: arming 132 interrupts; control 0 requests, 2 interrupts" in text
    else:
        assert figures is None
        assert "by any sender" not in text
