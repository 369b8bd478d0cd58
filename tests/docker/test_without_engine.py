"""kickwatch with a runtime instead of a Docker daemon: messages, trials, clean-up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import CommandResult, ended, kickwatch, start
from kickwatch.workload.oci_engine import ROOT
from leftovers import leftovers
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]

SOCKET = Path("/var/run/docker.sock")
OCI = ("--set", "engine.kind=oci")
SHORT = ("--set", "trial.window_s=0.5")
CHURN_FIRST = ("--set", "trial.seed=5", "--set", "trial.design=whole")  # begins with the churn window


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Nothing is left on the node, nor in the directory of the oci engine."""
    before = leftovers()
    yield
    assert leftovers() == before
    assert not ROOT.exists()


def without_docker(*arguments: str) -> CommandResult:
    """Run it in a new mount namespace in which Docker's socket is hidden."""
    hide = 'mount --bind /dev/null "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, str(SOCKET.resolve()), sys.executable, "-m", "kickwatch"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)
    return CommandResult(done.returncode, done.stdout, done.stderr)


def engine_of(doctor: CommandResult) -> dict[str, str]:
    """The row of the engine in the result of doctor."""
    return next(found for found in doctor.json["capabilities"] if found["name"] == "container engine")


def test_a_trial_without_docker_reports_why_it_drives_a_runtime() -> None:
    outcome = without_docker("trial", "--containers", "3", "--json", *SHORT)
    assert outcome.status == 4, outcome.err  # too few containers for a verdict
    result = outcome.json
    assert result["engine"].startswith("oci ")
    assert (result["containers"], result["failures"], result["kmem_accounting"]) == (3, [], "on")
    assert any("no daemon" in note and str(SOCKET) in note for note in result["notes"])


def test_a_complete_trial_is_quiet() -> None:
    outcome = kickwatch("trial", "--containers", "23", "--json", *OCI)
    assert (outcome.status, outcome.json["verdict"]) == (0, "quiet"), outcome.err
    assert outcome.json["per_container"]["creation_path_broadcasts"] == 0
    assert {row["reason"] for row in outcome.json["bill"]} >= {"flush_tlb_func", "rcu_exp_handler"}


def test_doctor_reports_the_engine_and_why() -> None:
    with_docker, with_oci, without = (
        kickwatch("doctor", "--json"),
        kickwatch("doctor", "--json", *OCI),
        without_docker("doctor", "--json"),
    )
    assert engine_of(with_docker)["detail"].startswith("docker ")
    assert engine_of(with_oci)["detail"].startswith("oci ")
    assert engine_of(with_oci)["detail"].endswith("because engine.kind is oci")
    assert engine_of(without)["detail"].startswith("oci ")
    assert str(SOCKET) in engine_of(without)["detail"]


def test_without_docker_and_runtime_the_error_has_both_remedies() -> None:
    outcome = without_docker("trial", "--containers", "1", "--set", "engine.runtime=/no/such/runtime")
    assert outcome.status == 1
    for part in (str(SOCKET), "systemctl start docker", "/no/such/runtime", "install runc or crun"):
        assert part in outcome.complaint


@pytest.mark.parametrize("setting", ["workload.network=bridge", "workload.image=foreign:1"])
def test_settings_that_need_an_engine_are_refused(setting: str) -> None:
    outcome = kickwatch("trial", "--containers", "1", *OCI, "--set", setting)
    assert outcome.status == 2
    assert setting in outcome.complaint
    assert "engine.kind=docker" in outcome.complaint


def test_leftovers_of_a_killed_trial_are_removed_by_the_next() -> None:
    slow = ("--set", "workload.concurrency=4", "--set", "workload.hold_s=0.5")
    victim = start("trial", "--containers", "300", *OCI, *slow, *CHURN_FIRST)
    until_there_are_bundles()
    time.sleep(4)  # the first container is the warm-up's, which is removed before the trial
    victim.kill()
    ended(victim)
    assert bundles(), "the trial was killed too early to leave anything"
    assert kickwatch("trial", "--containers", "1", *OCI, *SHORT).status == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_stopped_during_a_trial_cleans_up_at_once(tmp_path: Path, number: signal.Signals) -> None:
    state = ("--set", f"state.directory={tmp_path}/state", "--set", "metrics.enabled=false")
    pace = ("--set", "trial.interval_s=0", "--set", "budget.preset=stress", "--set", "workload.hold_s=0.5")
    stopped = start("run", *OCI, *CHURN_FIRST, *state, *pace)
    until_there_are_bundles()
    stopped.send_signal(number)
    since = time.monotonic()
    outcome = ended(stopped, 20)
    assert outcome.status == 0, outcome.err
    assert time.monotonic() - since < 10


def bundles() -> list[str]:
    """The directories of the containers."""
    return os.listdir(ROOT / "bundles") if (ROOT / "bundles").exists() else []  # noqa: PTH208 -- names are wanted


def until_there_are_bundles() -> None:
    """Wait for a minute at most."""
    deadline = time.monotonic() + 60 * SLOWNESS
    while not bundles() and time.monotonic() < deadline:
        time.sleep(0.05)
