"""One kernel of the laboratory beside all other tests: it starts when they do and is asked last.

A guest without KVM takes minutes and one CPU; most other tests wait most of the time. In SCHED_IDLE it takes no CPU
that anybody else wants.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from beside import GUEST
from command import DIES_WITH_US
from needs import unmet
from slowness import SLOWNESS

ROOT = Path(__file__).parents[2]
MACHINE = "trixie:v2:4"  # 6.12, cgroup v2, 4 CPUs
_CLEARS_UP_S = 20.0
LOG = ROOT / "build" / "lab" / "make-test.log"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """To the end with what waits for the guest."""
    items.sort(key=lambda item: bool(item.get_closest_marker("guest")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it, where a test that waits for it was chosen and nothing is missing."""
    chosen = any(item.get_closest_marker("guest") for item in session.items)
    if not chosen or session.config.option.collectonly or unmet("guest"):
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    command = [*DIES_WITH_US, "chrt", "--idle", "0", sys.executable, str(ROOT / "tests/lab/matrix.py")]
    environment = {**os.environ, "KICKWATCH_LAB_MACHINES": MACHINE}
    with LOG.open("wb") as log:
        run = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )
    session.config.stash[GUEST] = run
    Thread(target=run.wait, daemon=True).start()  # tests that look for children nobody has reaped are not to find it


@pytest.fixture
def laboratory(request: pytest.FixtureRequest) -> Callable[[float], str]:
    """Waits so many seconds for the run that was started with the session: all it said.

    Not its exit status: where somebody else has reaped a child, Popen takes the lost status for 0. An engine under test
    reaps those of other sessions, so the run stays in this one.
    """

    def ended(within_s: float) -> str:
        request.config.stash[GUEST].wait(within_s * SLOWNESS)
        return LOG.read_text("utf-8", errors="replace")

    return ended


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests that end early end the guest, which clears up what it can."""
    run = session.config.stash.get(GUEST, None)
    if run is not None and run.poll() is None:
        for number in (signal.SIGCONT, signal.SIGINT):
            os.killpg(run.pid, number)
        try:
            run.wait(_CLEARS_UP_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Its own lines: what passed in the guest, and in what time."""
    if config.stash.get(GUEST, None) is not None:
        lines = LOG.read_text("utf-8", errors="replace").splitlines()
        told = [line for line in lines if ": " in line and "|" not in line]
        terminalreporter.section("another kernel, in a guest")
        terminalreporter.write_line("\n".join(told[-4:]))
