"""What an operator can request of a running daemon, and what pauses it: drain, reload, guard, budget."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kickwatch.workload.names import read_instance
from node_daemon import NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

HELD_S, GONE_WITHIN_S = 20.0, 15.0


def ours() -> list[str]:
    """Our containers, whether they run or not."""
    label = f"label=kickwatch.instance={read_instance()}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def running() -> int:
    listed = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True)
    return len(listed.stdout.split())


def test_a_drain_during_a_trial(tmp_path: Path) -> None:
    """By file and by signal. Each container is held longer than the time in which all must be removed."""

    def switch(by: str, change_file: Callable[[Path], None]) -> None:
        if by == "file":
            change_file(tmp_path / "drain")
        else:
            daemon.send(signal.SIGUSR1)

    held = {"workload.hold_s": HELD_S, "workload.concurrency": 2, "guard.poll_s": 0.2}
    with NodeDaemon(tmp_path, held) as daemon:
        for by in ("file", "signal"):
            daemon.until(lambda: len(ours()) == 2, "two containers")
            since = daemon.mark()
            switch(by, Path.touch)
            drained_at = time.monotonic()
            daemon.until(lambda: not ours(), "none", GONE_WITHIN_S)
            assert time.monotonic() - drained_at < GONE_WITHIN_S
            assert daemon.wait("drained", since)["by"] == by
            cause = {"file": "drain file present", "signal": "SIGUSR1 received"}[by]
            daemon.wait_status(f"drained ({cause}): not starting containers")
            time.sleep(1)
            assert ours() == []
            switch(by, Path.unlink)
            assert daemon.wait("undrained", since)["by"] == by
        daemon.until(lambda: len(ours()) == 2, "two containers again")
        assert daemon.events("trial_finished") == []
        assert daemon.events("trial_failed") == []


@pytest.mark.parametrize("held", ["drained", "passive"])
def test_leftovers_of_a_killed_daemon_are_removed_even_if_drained_or_passive(tmp_path: Path, held: str) -> None:
    # hold_s is long, so no removal is in progress at the kill; the engine would complete it.
    with NodeDaemon(tmp_path, {"workload.hold_s": HELD_S, "workload.concurrency": 2}) as killed:
        killed.until(lambda: len(ours()) == 2, "two containers")
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert ours()
    if held == "drained":
        (tmp_path / "drain").touch()
    settings: dict[str, dict[str, object]] = {
        "drained": {},
        "passive": {"workload.enabled": False},
    }
    with NodeDaemon(tmp_path, settings[held], before=killed.before) as daemon:
        daemon.wait_status({"drained": "drained (drain file present)", "passive": "passive: "}[held])
        daemon.until(lambda: not ours(), "none", 10)
        assert daemon.events("trial_finished") == []
        # A complete session removes the image at its end.
        (tmp_path / "drain").unlink(missing_ok=True)
        daemon.configure(workload__enabled=True)
        daemon.send(signal.SIGHUP)
        daemon.wait("trial_finished")


def test_reload_with_a_good_and_a_bad_file(tmp_path: Path) -> None:
    with NodeDaemon(tmp_path) as daemon:
        daemon.wait("trial_finished")
        daemon.configure(trial__window_s=0.4)
        daemon.send(signal.SIGHUP)
        assert daemon.wait("reloaded")["changed"] == ["trial.window_s: 0.3 -> 0.4"]
        daemon.configure(trial__window_s="long", workload__containers_per_trial=3)
        daemon.send(signal.SIGHUP)
        refused = daemon.wait("reload_refused")
        assert f"{daemon.config}: trial.window_s" in refused["what"]
        assert refused["remedy"]
        since = daemon.mark()
        assert daemon.wait("trial_finished", since)["containers"] == 2
        daemon.configure(trial__window_s=0.3, workload__containers_per_trial=2)
        since = daemon.mark()
        daemon.send(signal.SIGHUP)
        assert daemon.wait("reloaded", since)["changed"] == ["trial.window_s: 0.4 -> 0.3"]
        assert daemon.wait("trial_finished", daemon.mark())["containers"] == 2
        assert len(daemon.events("started")) == 1


def test_the_guard_pauses_once_and_resumes_once(tmp_path: Path, own_image: str) -> None:
    most = running() + 1
    guarded = {
        "guard.enabled": True, "guard.containers": most, "guard.resume_share": 0.0, "guard.resume_after_s": 1.0,
        "guard.poll_s": 0.2,
    }  # fmt: skip
    foreign: list[str] = []
    with NodeDaemon(tmp_path, guarded) as daemon:
        daemon.wait("trial_finished")
        try:
            for _ in range(2):
                made = subprocess.run(
                    ["docker", "run", "-d", "--network", "none", own_image, "/workload", "--deadline-ms", "150000"],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                foreign.append(made.stdout.strip())
            paused = daemon.wait("paused")
            assert paused["reasons"] == ["containers"]
            assert paused["what"] == f"containers {most + 1} (limit {most})"
            daemon.wait_status(f"paused: containers {most + 1}")
            since = daemon.mark()
            time.sleep(2)
            assert daemon.events("trial_finished", since) == []
        finally:
            subprocess.run(["docker", "rm", "-f", *foreign], capture_output=True, check=True)
        assert daemon.wait("resumed")["paused_s"] >= 2
        assert daemon.wait("trial_finished", daemon.mark())["containers"] == 2
        assert (len(daemon.events("paused")), len(daemon.events("resumed"))) == (1, 1)


def test_a_restart_does_not_refill_a_spent_budget(tmp_path: Path) -> None:
    small = {"budget.containers_per_hour": 4, "guard.poll_s": 0.2}  # the warm-up and one trial
    with NodeDaemon(tmp_path, small) as daemon:
        why = daemon.wait_status("budget: ")
        assert why == "budget: 3 of 4 containers in the last hour, a trial needs 2"
        time.sleep(1)
        assert len(daemon.events("trial_finished")) == 1
    with NodeDaemon(tmp_path, small) as daemon:
        assert "of 4 containers in the last hour, a trial needs 2" in daemon.wait_status("budget: ")
        time.sleep(1)
        assert daemon.events("trial_finished") == []
        assert ours() == []
