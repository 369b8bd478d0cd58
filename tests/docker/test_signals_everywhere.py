"""Signals at random times of a short run, from the start of the interpreter to its exit.

The random seed is KICKWATCH_TEST_SEED, or a new one; it is printed. KICKWATCH_TEST_MOMENTS sets the number of signals.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.workload.oci_engine import ROOT
from leftovers import leftovers
from node_daemon import STOP_S, NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(400)]

MOMENTS = int(os.environ.get("KICKWATCH_TEST_MOMENTS", "12"))  # with each engine; each run draws others
TERM, INT, KILL, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1
IN_TURN = (TERM, INT, KILL, TERM, HUP, INT, TERM, KILL, INT, USR1)
ASKING = (HUP, USR1)
ASKED_S = 0.3  # from a signal with a request to SIGTERM


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal now (SigCgt, proc_pid_status(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


class Run:
    """One short run, and the signals sent to it."""

    def __init__(self, directory: Path, before: dict[str, list[str]], engine: str) -> None:
        """`before`: the result of `leftovers()` without a kickwatch. `engine`: the value of `engine.kind`."""
        self.since = time.monotonic()
        settings = {"engine.kind": engine, "trial.design": "paired"}
        self.daemon = NodeDaemon(directory, settings, trials=1, before=before)

    def sleep_until(self, moment_s: float) -> None:
        """Sleep until `moment_s` seconds after the start."""
        time.sleep(max(0.0, self.since + moment_s - time.monotonic()))

    def end(self, number: signal.Signals) -> str:
        """Send it; check exit time, exit status and output; return the outcome in a word."""
        listening = catches(self.daemon.pid, TERM)
        sent = time.monotonic()
        self.daemon.send(number)
        status = self.daemon.ended(STOP_S)
        assert time.monotonic() - sent < STOP_S
        if number is KILL:
            assert status in {0, -number}
            return "killed"
        if listening:
            assert status == 0, self.daemon.summary()
            assert self.daemon.text == [], "a requested stop is no failure"
            return "stopped"
        # Before the handlers are installed and after they are removed, there is nothing to clean up.
        assert status in {0, -number, 1}, self.daemon.summary()
        return f"not listening, status {status} {self.daemon.text[-1:]}"

    def ask(self, number: signal.Signals) -> str:
        """Send a signal with a request, and SIGTERM a little later."""
        if not catches(self.daemon.pid, number):
            self.daemon.send(number)
            status = self.daemon.ended(STOP_S)
            assert status in {0, -number}, self.daemon.summary()
            return f"not listening, status {status}"
        self.daemon.send(number)
        time.sleep(ASKED_S)
        assert self.daemon.process.poll() in {None, 0}, self.daemon.summary()
        return self.end(TERM)


@pytest.mark.parametrize("engine", ["docker", "oci"])
def test_signals_at_random_times(tmp_path: Path, engine: str) -> None:
    """SIGTERM and SIGINT leave nothing; what SIGKILL leaves, the next start removes."""
    seed = int(os.environ.get("KICKWATCH_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    draw = random.Random(seed)  # noqa: S311 -- times, no secrets
    before = leftovers()
    undisturbed = Run(tmp_path, before, engine)
    assert undisturbed.daemon.ended() == 0
    length_s = time.monotonic() - undisturbed.since
    print(f"KICKWATCH_TEST_SEED={seed}; an undisturbed run takes {length_s:.1f} s")  # noqa: T201 -- to repeat it
    for index, (number, moment_s) in enumerate(moments(draw, length_s)):
        run = Run(tmp_path, before, engine)
        run.sleep_until(moment_s)
        what = run.ask(number) if number in ASKING else run.end(number)
        print(f"{index}: {number.name} after {moment_s:.2f} s: {what}")  # noqa: T201 -- as above
        if number is KILL:
            run = Run(tmp_path, before, engine)
            run.daemon.wait_status("churn window")
            assert run.daemon.stop() == 0, run.daemon.summary()
        assert run.daemon.left() == {}, f"{number.name} after {moment_s:.2f} s"
        assert not ROOT.exists(), f"{number.name} after {moment_s:.2f} s"
        assert run.daemon.events("history_trouble") == []


def moments(draw: random.Random, length_s: float) -> Iterator[tuple[signal.Signals, float]]:
    """The signals in turn, at random times."""
    for index in range(MOMENTS):
        yield IN_TURN[index % len(IN_TURN)], draw.uniform(0, length_s)


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Another one of the same number would be merged with it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_many_sighup_and_sigusr1_have_no_other_effects(tmp_path: Path) -> None:
    """The file has not changed, and an even number of drain requests cancels out."""
    draw = random.Random(1)  # noqa: S311 -- as above
    with NodeDaemon(tmp_path, {"guard.poll_s": 0.2}) as daemon:
        daemon.wait("started")
        for number in draw.sample(ASKING * 20, 40):
            daemon.until(lambda number=number: not is_pending(daemon.pid, number), "room for another signal")
            daemon.send(number)
            time.sleep(draw.uniform(0, 0.2))
        since = daemon.mark()
        daemon.wait("trial_finished", since, times=2)
        assert {tuple(record["changed"]) for record in daemon.events("reloaded")} == {()}
        assert daemon.events("reload_refused") == []
        assert len(daemon.events("drained")) == len(daemon.events("undrained"))
        assert daemon.events("trial_failed") == []
        assert daemon.events("clean_up_failed") == []
        assert len(daemon.events("started")) == 1
