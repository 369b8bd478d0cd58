"""`kickwatch watch` in real terminals while a real daemon starts, works, stops, and comes back with a fault."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from in_tmux import COLOUR, Tmux
from node_daemon import NodeDaemon
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(240)]

LIMIT = 33554432
WATCH = [sys.executable, "-m", "kickwatch", "watch", "--interval", "0.2"]
SIZES = {"narrow": (80, 24), "wide": (200, 50)}
SETTINGS: dict[str, object] = {"workload.containers_per_trial": 14, "trial.interval_s": 2.0, "guard.enabled": True}
# Which function has the most requests, and so a row on a low screen, is not the same on each node.
RATE_OF_A_REASON = re.compile(r"^  creation-path broadcasts: .*\n  [a-z_][a-z0-9_.]* +[0-9.e+-]+ ", re.MULTILINE)
HAS_FAULT = Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists()  # cgroup v1 only


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Tmux]:
    """A narrow terminal with colours, and a wide one without."""
    with Tmux(tmp_path) as tmux:
        for name, (columns, rows) in SIZES.items():
            tmux.start(name, WATCH, columns, rows, colour=name == "narrow")
        yield tmux


@pytest.fixture
def lines() -> Iterator[subprocess.Popen[str]]:
    """The watch in a pipe."""
    with subprocess.Popen(WATCH, stdout=subprocess.PIPE, text=True) as watch:
        yield watch
        watch.kill()


def is_whole(screen: str, columns: int, rows: int) -> bool:
    """The identity is the first row and the keys are the last one: nothing has scrolled, wrapped, or been left over."""
    shown = screen.split("\n")[:-1]
    return (
        len(shown) == rows
        and max(map(len, shown)) == len(shown[0]) == columns
        and shown[0].startswith("kickwatch ")
        and shown[-1].startswith("q: quit"[:columns])
        and sum(row.startswith("EVIDENCE") for row in shown) == 1
    )


def fits(tmux: Tmux, name: str, columns: int, rows: int) -> None:
    """In the end: between two sizes tmux may show a part of either screen. What is left over stays, and fails."""
    tmux.until(name, lambda screen: is_whole(screen, columns, rows), f"a whole screen of {columns} x {rows}")


def names_a_function(tmux: Tmux, name: str) -> None:
    """The reason with the most requests is on a low screen; TLB shootdowns are where there is room for all."""
    if name == "wide":
        tmux.shows(name, "flush_tlb_func")
    else:
        tmux.until(name, lambda screen: RATE_OF_A_REASON.search(screen) is not None, "the rate of a kernel function")


def bills_the_fault_first(screen: str) -> bool:
    rows = screen.split("\n")
    bill = next((number for number, row in enumerate(rows) if "BILL PER CONTAINER" in row), len(rows))
    return any("create  " in row and "do_sync_core" in row for row in rows[bill + 2 : bill + 3])


def shows_the_end_of(daemon: NodeDaemon, screen: str) -> bool:
    """In the end: a screen that is read while it is drawn may have rows of the one before. What stays, fails."""
    live = any(part in screen for part in ("QUIET", "EVIDENCE", "BILL", "GUARD"))
    return not live and all(part in screen for part in ("NOT RUNNING", "LAST STATE", f"pid {daemon.pid}"))


def test_it_follows_a_daemon_through_sizes_stops_and_a_fault(
    terminals: Tmux, lines: subprocess.Popen[str], tmp_path: Path
) -> None:
    for name in SIZES:
        terminals.shows(name, "NOT RUNNING")
    with NodeDaemon(tmp_path, SETTINGS) as daemon:
        for name, size in SIZES.items():
            terminals.shows(name, f"pid {daemon.pid}", "QUIET for", "BILL PER CONTAINER  latest trial", timeout_s=90)
            parts = (
                "IPIs PER SECOND  all CPUs",
                "slab_mutex: ",
                "budget: containers ",
                "GUARD  calm",
            )
            screen = terminals.shows(name, *parts)
            assert "NO NEWS" not in screen
            names_a_function(terminals, name)
            fits(terminals, name, *size)
        for size in ((46, 12), (150, 40), SIZES["narrow"]):
            terminals.resize("narrow", *size)
            fits(terminals, "narrow", *size)
        assert COLOUR.search(terminals.screen("narrow", colour=True))
        assert not COLOUR.search(terminals.screen("wide", colour=True))
    for name in SIZES:
        terminals.until(name, lambda screen: shows_the_end_of(daemon, screen), "the last state, and nothing live")
    _with_the_fault(terminals, tmp_path)
    for name in SIZES:
        terminals.press(name, "q" if name == "narrow" else "C-c")
        assert terminals.shows(name, "ended with 0").strip() == "ended with 0", "the screen of before must be back"
    lines.terminate()
    said, _ = lines.communicate(timeout=10 * SLOWNESS)
    _check_lines(said, daemon.pid, lines.returncode)


def _with_the_fault(terminals: Tmux, tmp_path: Path) -> None:
    fault = {"workload.kmem_tcp_limit_bytes": LIMIT} if HAS_FAULT else {}
    directory = tmp_path / "again"
    directory.mkdir()
    with NodeDaemon(directory, {**SETTINGS, "workload.containers_per_trial": 4, **fault}) as daemon:
        for name, size in SIZES.items():
            terminals.shows(name, f"pid {daemon.pid}", "BILL PER CONTAINER  latest trial", timeout_s=90)
            names_a_function(terminals, name)
            if HAS_FAULT:
                parts = (
                    "BROADCASTING for",
                    "CREATING CONTAINERS MAKES THE KERNEL",
                    "ALERT: the creation path",
                    "ALARM",
                )
                terminals.shows(name, *parts, timeout_s=60)
                terminals.until(name, bills_the_fault_first, "the creation path first on the bill")
            fits(terminals, name, *size)


def _check_lines(said: str, first_pid: int, status: int) -> None:
    assert status == 0
    assert "\x1b" not in said
    topics = [line.partition(" ")[2] for line in said.splitlines()]
    runs = [topic for topic in topics if topic.startswith("daemon: ")]
    assert any(f"pid {first_pid}" in run and "not running" not in run for run in runs), runs
    assert sum("daemon: not running since" in run for run in runs) >= 2, runs
    assert any(topic.startswith("trial: ") and "creation-path broadcasts" in topic for topic in topics)
    assert any(topic.startswith("condition: quiet") for topic in topics)
    assert not HAS_FAULT or any(topic.startswith("condition: broadcasting") for topic in topics)
