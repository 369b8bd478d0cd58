"""Signals at random moments of a short run, from the interpreter's first instruction to its last.

The moments are drawn from KICKWATCH_TEST_SEED, or from a seed that is printed.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import leftovers
from node_daemon import STOP_S, NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(400)]

MOMENTS = 50
TERM, INT, KILL, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1
IN_TURN = (TERM, INT, KILL, TERM, HUP, INT, TERM, KILL, INT, USR1)
ASKING = (HUP, USR1)
ASKED_S = 0.3  # from a signal that asks for something to the one that ends it


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a handler of the process's own is there now (SigCgt, proc_pid_status(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


class Run:
    """One short run, and what is done to it."""

    def __init__(self, directory: Path, before: dict[str, list[str]]) -> None:
        """`before`: what there is on the node without kickwatch."""
        self.since = time.monotonic()
        self.daemon = NodeDaemon(directory, trials=1, before=before)

    def sleep_until(self, moment_s: float) -> None:
        """Until so long after the start."""
        time.sleep(max(0.0, self.since + moment_s - time.monotonic()))

    def end(self, number: signal.Signals) -> str:
        """Send it; what became of the process, in a word. Within 10 s, with the right status, without a traceback."""
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
            assert self.daemon.text == [], "an end that was asked for is no failure"
            return "stopped"
        # Before the handlers are there, and after they have gone, nothing is there that would have to be removed.
        assert status in {0, -number, 1}, self.daemon.summary()
        return f"not listening, status {status} {self.daemon.text[-1:]}"

    def ask(self, number: signal.Signals) -> str:
        """Send what ends nothing, and a little later what does."""
        if not catches(self.daemon.pid, number):
            self.daemon.send(number)
            status = self.daemon.ended(STOP_S)
            assert status in {0, -number}, self.daemon.summary()
            return f"not listening, status {status}"
        self.daemon.send(number)
        time.sleep(ASKED_S)
        assert self.daemon.process.poll() in {None, 0}, self.daemon.summary()
        return self.end(TERM)


def test_signals_at_random_moments(tmp_path: Path) -> None:
    """After SIGTERM and SIGINT nothing is left; what SIGKILL leaves is gone after the next start."""
    seed = int(os.environ.get("KICKWATCH_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    draw = random.Random(seed)  # noqa: S311 -- moments, no secrets
    before = leftovers()
    whole = Run(tmp_path, before)
    assert whole.daemon.ended() == 0
    length_s = time.monotonic() - whole.since
    print(f"KICKWATCH_TEST_SEED={seed}; a whole run takes {length_s:.1f} s")  # noqa: T201 -- to repeat it
    for index, (number, moment_s) in enumerate(moments(draw, length_s)):
        run = Run(tmp_path, before)
        run.sleep_until(moment_s)
        what = run.ask(number) if number in ASKING else run.end(number)
        print(f"{index}: {number.name} after {moment_s:.2f} s: {what}")  # noqa: T201 -- as above
        if number is KILL:
            run = Run(tmp_path, before)
            run.daemon.wait_status("churn window")
            assert run.daemon.stop() == 0, run.daemon.summary()
        assert run.daemon.left() == {}, f"{number.name} after {moment_s:.2f} s"
        assert run.daemon.events("history_trouble") == []


def moments(draw: random.Random, length_s: float) -> Iterator[tuple[signal.Signals, float]]:
    """Signals in turn, moments at random."""
    for index in range(MOMENTS):
        yield IN_TURN[index % len(IN_TURN)], draw.uniform(0, length_s)


def test_a_storm_of_sighup_and_sigusr1_changes_nothing_but_what_is_asked(tmp_path: Path) -> None:
    """Nothing in the file has changed, and who drains an even number of times drains not."""
    draw = random.Random(1)  # noqa: S311 -- as above
    with NodeDaemon(tmp_path, {"guard.poll_s": 0.2}) as daemon:
        daemon.wait("started")
        for number in draw.sample(ASKING * 20, 40):
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
