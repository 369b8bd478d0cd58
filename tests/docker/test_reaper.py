"""After kill -9 during a trial the next start removes the leftovers, and never touches a foreign container."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from command import ended, kickwatch, start
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.names import CGROUP_NAME, read_instance
from leftovers import leftovers
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]

PARENT = f"/{CGROUP_NAME}"
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


def _kill_while_containers_exist(victim: "subprocess.Popen[str]") -> None:
    """SIGKILL, while it is stopped: a trial that runs may have none at the moment, for example between its halves."""
    deadline = time.monotonic() + 60 * SLOWNESS
    while not _ours() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)  # past the first one
    os.kill(victim.pid, signal.SIGSTOP)
    while not _ours() and time.monotonic() < deadline:
        os.kill(victim.pid, signal.SIGCONT)
        time.sleep(0.2)
        os.kill(victim.pid, signal.SIGSTOP)
    os.kill(victim.pid, signal.SIGKILL)
    ended(victim)


def test_leftovers_of_kill_9_are_removed_by_the_next_start(foreign: str) -> None:
    before = leftovers()
    victim = start("trial", "--containers", "200", "--set", "workload.concurrency=4", *CHURN_FIRST)
    _kill_while_containers_exist(victim)
    assert _ours(), "the trial was killed too early to leave anything"
    outcome = kickwatch("trial", "--containers", "1", "--set", "trial.window_s=0.5")
    assert outcome.status == 4  # too few containers for a verdict
    assert _ours() == []
    assert leftovers() == before
    running = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Running}}", foreign], capture_output=True, text=True, check=True
    )
    assert running.stdout.strip() == "true"


@pytest.fixture
def neighbour(own_image: str) -> Iterator[str]:
    """A container of another user whose cgroup is below our parent."""
    made = subprocess.run(
        ["docker", "run", "-d", "--network", "none", "--cgroup-parent", PARENT, own_image, "/workload",
         "--deadline-ms", "150000"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    yield made
    subprocess.run(["docker", "rm", "-f", made], capture_output=True, check=True)
    for mount in Cgroups.read().mounts:
        assert remove_tree(mount / PARENT.lstrip("/")) == ()


@contextmanager
def left_behind(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the cgroup of a container that no engine knows, as the init of a runc that was killed at a start."""
    cgroups = [mount / PARENT.lstrip("/") / name for mount in Cgroups.read().mounts]
    with subprocess.Popen(["sleep", "150"]) as process:
        for cgroup in cgroups:
            cgroup.mkdir(parents=True)
            with suppress(OSError):  # a cpuset without CPUs takes no process
                (cgroup / "cgroup.procs").write_text(str(process.pid))
        try:
            yield process
        finally:
            process.kill()


def test_what_is_left_of_ours_is_ended_and_anothers_container_beside_it_lives(neighbour: str) -> None:
    """`docker run --cgroup-parent=/kickwatch` of another user got SIGKILL at every start and stop."""
    victim = start("trial", "--containers", "200", *CHURN_FIRST)
    deadline = time.monotonic() + 60 * SLOWNESS
    while not ContainerRecord().read() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    ended(victim)
    recorded = ContainerRecord().read()
    assert recorded
    assert neighbour not in recorded
    for container in _ours():  # then the engine knows none any more
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)
    ours, another = min(recorded), "0" * 64
    with left_behind(ours) as killed, left_behind(another) as spared:
        outcome = kickwatch("trial", "--containers", "1", "--set", "trial.window_s=0.5")
        assert outcome.status == 4, outcome.err  # too few containers for a verdict
        assert killed.wait(5) == -signal.SIGKILL
        assert spared.poll() is None
    inspected = ["docker", "inspect", "-f", "{{.State.Running}}", neighbour]
    assert subprocess.run(inspected, capture_output=True, text=True, check=True).stdout.strip() == "true"
    assert ours not in ContainerRecord().read()


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
