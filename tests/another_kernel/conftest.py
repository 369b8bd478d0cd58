"""One kernel of the laboratory in parallel to all other tests: it starts with them, and its result is checked last.

A guest without KVM takes minutes and one CPU, while most other tests are idle most of the time. It runs in SCHED_IDLE,
so it takes no CPU time from them.
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
# Another boot, a dozen of doctor's runs, or many containers of others: minutes each, for `make kernels`.
LEFT_OUT = tuple(f"tests/lab/test_{name}.py" for name in ("lockdown", "losses", "passive"))
_CLEAN_UP_S = 20.0
LOG = ROOT / "build" / "lab" / "make-test.log"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that wait for the guest to the end."""
    items.sort(key=lambda item: bool(item.get_closest_marker("guest")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the guest if a selected test waits for it and all programs are available."""
    chosen = any(item.get_closest_marker("guest") for item in session.items)
    if not chosen or session.config.option.collectonly or unmet("guest"):
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    command = [*DIES_WITH_US, "chrt", "--idle", "0", sys.executable, str(ROOT / "tests/lab/matrix.py")]
    command += [f"--deselect={path}" for path in LEFT_OUT]
    environment = {**os.environ, "KICKWATCH_LAB_MACHINES": MACHINE}
    with LOG.open("wb") as log:
        run = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )
    session.config.stash[GUEST] = run
    Thread(target=run.wait, daemon=True).start()  # reaps it, so that tests for zombies do not find it


@pytest.fixture
def laboratory(request: pytest.FixtureRequest) -> Callable[[float], str]:
    """A function that waits for the run started with the session, and returns its output.

    Not its exit status: if other code has reaped a child, Popen reports 0 for the lost status. An engine under test
    reaps children of other sessions, so the run stays in this session.
    """

    def ended(timeout_s: float) -> str:
        request.config.stash[GUEST].wait(timeout_s * SLOWNESS)
        return LOG.read_text("utf-8", errors="replace")

    return ended


def pytest_sessionfinish(session: pytest.Session) -> None:
    """If the tests end early, stop the guest, which cleans up what it can."""
    run = session.config.stash.get(GUEST, None)
    if run is not None and run.poll() is None:
        for number in (signal.SIGCONT, signal.SIGINT):
            os.killpg(run.pid, number)
        try:
            run.wait(_CLEAN_UP_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the guest's result lines: what passed, and how long it took."""
    if config.stash.get(GUEST, None) is not None:
        lines = LOG.read_text("utf-8", errors="replace").splitlines()
        results = [line for line in lines if ": " in line and "|" not in line]
        terminalreporter.section("another kernel, in a guest")
        terminalreporter.write_line("\n".join(results[-4:]))
