"""The unit tests in Debian 13's user land run in parallel to all other tests, in SCHED_IDLE; the result comes last."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from beside import USER_LAND
from command import DIES_WITH_US
from needs import unmet
from slowness import SLOWNESS

ROOT = Path(__file__).parents[2]
LOG = ROOT / "build" / "debian-13.log"
_CLEAN_UP_S = 20.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the test that waits for it to the end."""
    items.sort(key=lambda item: bool(item.get_closest_marker("userland")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it if a selected test waits for it and all programs are available."""
    chosen = any(item.get_closest_marker("userland") for item in session.items)
    if not chosen or session.config.option.collectonly or unmet("userland"):
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).with_name("user_land.py"))
    # Its timeouts are those of a machine on which everything else comes first.
    environment = {**os.environ, "KICKWATCH_TEST_SLOWNESS": str(4 * SLOWNESS)}
    with LOG.open("wb") as log:
        run = subprocess.Popen(
            [*DIES_WITH_US, "chrt", "--idle", "0", sys.executable, script, "-q"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    session.config.stash[USER_LAND] = run
    Thread(target=run.wait, daemon=True).start()  # reaps it, so that tests for zombies do not find it


@pytest.fixture
def user_land(request: pytest.FixtureRequest) -> Callable[[float], str]:
    """A function that waits for the run started with the session, and returns its output.

    Not its exit status, which an engine under test may have reaped.
    """

    def ended(timeout_s: float) -> str:
        request.config.stash[USER_LAND].wait(timeout_s * SLOWNESS)
        return LOG.read_text("utf-8", errors="replace")

    return ended


def pytest_sessionfinish(session: pytest.Session) -> None:
    """If the tests end early, stop it: it removes its files, and its namespaces end with it."""
    run = session.config.stash.get(USER_LAND, None)
    if run is not None and run.poll() is None:
        for number in (signal.SIGCONT, signal.SIGINT):
            os.killpg(run.pid, number)
        try:
            run.wait(_CLEAN_UP_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
