"""After kill -9 during a trial the next start removes the leftovers, and never touches a foreign container."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from command import ended, kickwatch, start
from kickwatch.workload.names import read_instance
from leftovers import leftovers
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]

CHURN_FIRST = ("--set", "trial.seed=5", "--set", "trial.design=whole")  # containers from its beginning on


def _ours() -> list[str]:
    label = f"label=kickwatch.instance={read_instance()}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.fixture
def foreign(own_image: str) -> Iterator[str]:
    """A container started by another user, with a name and labels like ours."""
    made = subprocess.run(
        ["docker", "run", "-d", "--network", "none", "--name", "kickwatch-lookalike", "--label", "kickwatch=1",
         "--label", "kickwatch.instance=another", own_image, "/workload", "--deadline-ms", "150000"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    yield made.stdout.strip()
    subprocess.run(["docker", "rm", "-f", made.stdout.strip()], capture_output=True, check=True)


def test_leftovers_of_kill_9_are_removed_by_the_next_start(foreign: str) -> None:
    before = leftovers()
    victim = start("trial", "--containers", "200", "--set", "workload.concurrency=4", *CHURN_FIRST)
    deadline = time.monotonic() + 60 * SLOWNESS
    while not _ours() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)
    os.kill(victim.pid, signal.SIGKILL)
    ended(victim)
    assert _ours(), "the trial was killed too early to leave anything"
    outcome = kickwatch("trial", "--containers", "1", "--set", "trial.window_s=0.5")
    assert outcome.status == 4  # too few containers for a verdict
    assert _ours() == []
    assert leftovers() == before
    running = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Running}}", foreign], capture_output=True, text=True, check=True
    )
    assert running.stdout.strip() == "true"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_trial_cleans_up_at_once(number: signal.Signals) -> None:
    before = leftovers()
    stopped = start("run", "--set", "workload.concurrency=2", *CHURN_FIRST)
    deadline = time.monotonic() + 60 * SLOWNESS
    while not _ours() and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped.send_signal(number)
    since = time.monotonic()
    outcome = ended(stopped, 20)
    assert outcome.status == 0, outcome.err
    assert time.monotonic() - since < 10
    assert leftovers() == before


def test_a_second_kickwatch_is_refused() -> None:
    first = start("trial", "--containers", "5")
    try:
        time.sleep(1.5)
        second = kickwatch("trial", "--containers", "1")
        assert second.status == 1
        assert f"pid {first.pid}" in second.complaint
    finally:
        assert ended(first).status == 4
