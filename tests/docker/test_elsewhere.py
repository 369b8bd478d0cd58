"""Broadcasts that no creation-path stack explains: a program's socket makes a worker patch the kernel's text."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import kickwatch
from node_daemon import CHURN_FIRST, NodeDaemon
from timestamping import BROADCASTS, image

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def timestamping() -> Iterator[str]:
    with image() as name:
        yield name


@pytest.mark.long
def test_broadcasts_elsewhere_convict_a_run_by_its_pairs_and_their_function_is_named(timestamping: str) -> None:
    user = (f"workload.image={timestamping}", "workload.hold_s=0.5")
    settings = (*user, "trial.window_s=1", f"trial.seed={CHURN_FIRST}")
    words = [word for setting in settings for word in ("--set", setting)]
    outcome = kickwatch("trial", "--until-decided", "--json", *words, timeout_s=180)
    result = outcome.json
    verdict = (outcome.status, result["verdict"], result["reasons"])
    assert verdict == (3, "broadcasting", ["broadcasts_elsewhere"]), result
    assert len(result["evidence"]["trials"]) <= 2  # one, on an idle node: on a busy one some pairs are outlasted
    (worst, *_) = result["evidence"]["beside"]
    assert (worst["reason"], worst["heard_as"]) == ("do_sync_core", "elsewhere")
    # The key is off only while no process on the node has such a socket; another test may have one open.
    assert 0.5 <= worst["broadcasts_per_container"] <= BROADCASTS + 1
    assert result["per_container"]["creation_path_broadcasts"] == 0


@pytest.mark.long
@pytest.mark.timeout(800)
def test_broadcasts_elsewhere_make_the_daemon_unknown_at_once_and_alarm_within_three_trials_of_pairs(
    timestamping: str, tmp_path: Path
) -> None:
    settings = {"workload.containers_per_trial": 23, "trial.window_s": 1.0, "trial.design": "mixed"}
    users = {"workload.image": timestamping, "workload.hold_s": 0.5}
    with NodeDaemon(tmp_path, settings) as daemon:
        assert daemon.wait("trial_finished", timeout_s=150)["verdict"] == "quiet"
        daemon.configure(**{key.replace(".", "__"): value for key, value in users.items()})
        mark = daemon.mark()
        daemon.send(signal.SIGHUP)
        # A trial that has just begun comes first, and what it found with the old image does not count.
        mark = daemon.records.index(daemon.wait("reloaded", mark, timeout_s=150))
        last = daemon.wait("trial_finished", mark, timeout_s=150)
        assert (last["verdict"], last["reasons"]) == ("unknown", ["broadcasts_elsewhere"]), last
        alarm = daemon.wait("elsewhere_detected", mark, timeout_s=240)
        assert alarm["reason"] == "do_sync_core"
        trials = daemon.events("trial_finished", mark)
        # Every third trial has none, and outlasted pairs prove nothing: a busy node takes more trials, not more pairs.
        assert sum(trial["pairs"] - trial["pairs_outlasted"] for trial in trials) <= 3 * 23, trials
