"""`kickwatch gate` over a made-up experiment: its exit statuses, its files, and a run that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from command import DIES_WITH_US
from slowness import SLOWNESS

ROOT = Path(__file__).parents[3]
# The real command; only the experiment is replaced.
SCRIPT = """
import asyncio
import os
import signal
import kickwatch.commands.gating as module
from kickwatch.detect.single import one_shot
from kickwatch.errors import EngineAbsentError
from kickwatch.model import ContentionRung
from msgspec.structs import replace
from watching import serial

async def decided(config, containers, step, limits, **_):
    assert limits.until_decided
    kind = os.environ["KIND"]
    if kind == "absent":
        raise EngineAbsentError("no engine answers on /run/docker.sock", "start it")
    if kind == "full disk":
        raise OSError(28, "No space left on device", "/run/kickwatch/x")
    if kind == "interrupted":
        raise asyncio.CancelledError
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    trials = [serial(3 if kind == "faulty" else 0, number=10 if kind == "short" else containers)]
    if kind == "waits unseen":
        trials = [replace(one, observers=replace(one.observers, contention=ContentionRung.NONE)) for one in trials]
    if kind == "waits lost":
        trials = [replace(one, churn=replace(one.churn, lost_waits=containers)) for one in trials]
    return trials, one_shot(trials, limits.error_rate)

module.decide = decided
from kickwatch.cli import main
main()
"""


def gate(kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "tests" / "support")])
    return subprocess.run(
        [*DIES_WITH_US, sys.executable, "-c", SCRIPT, "gate", *arguments],
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        env={**os.environ, "PYTHONPATH": path, "KIND": kind},
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "status", "verdict", "outcome"),
    [
        ("healthy", 0, "quiet", "passed"),
        ("faulty", 3, "broadcasting", "failed"),
        ("short", 4, "unknown", "unknown"),
        ("absent", 4, "unknown", "unknown"),
        ("full disk", 4, "unknown", "unknown"),
    ],
)
def test_only_a_quiet_kernel_passes(kind: str, status: int, verdict: str, outcome: str, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("junit", "ktap", "json")}
    done = gate(kind, *(word for name, file in files.items() for word in (f"--{name}", str(file))))
    assert done.returncode == status, done.stderr
    assert f"verdict: {verdict}" in done.stdout.splitlines()[-1]
    found = json.loads(files["json"].read_text())
    assert (found["verdict"], found["exit_status"]) == (verdict, status)
    checks = {check["name"]: check["outcome"] for check in found["checks"]}
    assert checks["creation_path"] == outcome
    suite = ElementTree.fromstring(files["junit"].read_bytes())  # noqa: S314 -- our own
    assert (suite.get("failures") == suite.get("errors") == "0") == (status == 0)
    assert ("not ok" in files["ktap"].read_text()) == (status != 0)


def test_a_run_that_fails_is_unknown_and_every_format_names_the_cause(tmp_path: Path) -> None:
    done = gate("absent", "--junit", str(tmp_path / "gate.xml"), "--ktap", "-")
    assert done.returncode == 4
    assert "# measurement: unknown: no engine answers on /run/docker.sock: start it" in done.stdout
    assert "no engine answers" in (tmp_path / "gate.xml").read_text()


def test_a_faulty_kernel_is_logged_as_an_alert() -> None:
    done = gate("faulty", "--json", "-")
    assert json.loads(done.stderr)["event"] == "kickwatch.broadcast_detected"
    assert json.loads(done.stdout)["trial"]["bill"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ktap", "-", "--json", "-"), "two formats are to go to one place"),
        (("--junit", "/no/such/directory/gate.xml"), "/no/such/directory is not a directory"),
        (("--error-rate", "0"), "0 is not in the range"),
        (("--set", "trial.no_such_key=1"), "no_such_key"),
    ],
)
def test_a_wrong_command_line_runs_nothing(arguments: tuple[str, ...], complaint: str) -> None:
    done = gate("healthy", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_full_disk_lets_no_kernel_pass() -> None:
    done = gate("healthy", "--junit", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("kind", "arguments", "status", "cause"),
    [
        ("interrupted", (), 1, "interrupted"),
        ("killed", (), -9, "the run did not end"),
        ("healthy", ("--set", "trial.no_such_key=1"), 2, "no_such_key"),
    ],
)
def test_a_run_without_a_result_leaves_no_earlier_one(
    kind: str, arguments: tuple[str, ...], status: int, cause: str, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("junit", "ktap", "json")}
    named = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    assert gate("healthy", *named).returncode == 0
    assert gate(kind, *named, *arguments).returncode == status
    found = json.loads(files["json"].read_text())
    assert found["verdict"] == "unknown"
    assert found["exit_status"] == (4 if status == -9 else status)
    assert cause in found["failure"]
    assert ElementTree.fromstring(files["junit"].read_bytes()).get("errors") == "4"  # noqa: S314 -- our own
    assert files["ktap"].read_text().count("not ok") == 4


def test_a_strict_gate_does_not_pass_where_waits_cannot_be_seen() -> None:
    assert gate("waits unseen").returncode == 0
    strict = gate("waits unseen", "--strict", "--ktap", "-")
    assert strict.returncode == 4
    assert "not ok 4 slab_mutex" in strict.stdout
    assert gate("waits unseen", "--strict").stdout.endswith("; slab_mutex: unknown\n")


def test_a_strict_gate_does_not_pass_where_waits_were_lost() -> None:
    assert gate("waits lost").returncode == 0
    strict = gate("waits lost", "--strict", "--ktap", "-")
    assert strict.returncode == 4
    assert "not ok 4 slab_mutex" in strict.stdout
    assert "with the waits that the probe lost" in strict.stdout


def test_a_file_that_cannot_be_written_keeps_no_other_back(tmp_path: Path) -> None:
    done = gate("faulty", "--junit", "/dev/full", "--json", str(tmp_path / "gate.json"))
    assert done.returncode == 1
    assert json.loads((tmp_path / "gate.json").read_text())["verdict"] == "broadcasting"
