"""`kickwatch trial` in a real terminal emulator: bar and answer, wide and narrow, resized, without colours, Ctrl-C."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from in_tmux import COLOUR, Tmux
from leftovers import leftovers
from needs import FEATURE
from node_daemon import CHURN_FIRST

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.long, pytest.mark.timeout(400)]

FAULT = ["--set", "workload.kmem_tcp_limit_bytes=33554432"]
TRIAL = [sys.executable, "-m", "kickwatch", "trial", "--containers"]
SHORT = ["--set", "trial.window_s=0.5", "--set", "trial.canary_memcgs=0", "--set", f"trial.seed={CHURN_FIRST}"]
BAR = re.compile(r"measuring \S+ +\d+/\d+ containers about \d+ s left")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    with Tmux(tmp_path) as one:
        yield one


def shown_in_all(tmux: Tmux, name: str, *, colour: bool = False) -> str:
    """What the terminal shows, and what has scrolled off."""
    return tmux._run("capture-pane", "-p", "-S", "-", "-t", name, *(["-e"] if colour else []))


def ended(tmux: Tmux, name: str, status: int) -> str:
    tmux.shows(name, f"ended with {status}", timeout_s=170)
    return shown_in_all(tmux, name)


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists(),
    reason=f"{FEATURE} the kmem TCP limit, a real fault on any kernel, exists only on cgroup v1",
)
def test_a_fault_narrow_and_without_colours_then_wide_and_with(tmux: Tmux) -> None:
    for columns, rows, colour in ((80, 24, False), (200, 50, True)):
        name = f"of-{columns}"
        # 12: a dying memcg can keep the key on for some of them.
        tmux.start(name, [*TRIAL, "12", *SHORT, *FAULT], columns, rows, colour=colour)
        assert BAR.search(tmux.until(name, lambda screen: bool(BAR.search(screen)), "the bar"))
        text = ended(tmux, name, 3)
        assert not BAR.search(text)  # it leaves nothing behind
        lines = text.splitlines()
        assert lines[0].startswith("verdict: broadcasting (creation_path_broadcasts): creating a container makes")
        assert "asked for by mem_cgroup_write" in " ".join(text.split())
        assert max(map(len, lines)) <= columns
        assert bool(COLOUR.search(shown_in_all(tmux, name, colour=True))) == colour


def test_it_is_resized_while_it_runs(tmux: Tmux) -> None:
    """The bar follows at its next step; the answer is as wide as the terminal is at the end."""
    tmux.start("one", [*TRIAL, "10", *SHORT], 80, 24)
    tmux.until("one", lambda screen: bool(BAR.search(screen)), "the bar")
    tmux.resize("one", 120, 30)
    wide = tmux.until(
        "one", lambda screen: any(len(row) > 100 and BAR.search(row) for row in screen.splitlines()), "it"
    )
    assert "verdict" not in wide
    tmux.resize("one", 70, 24)
    tmux.shows("one", "ended with", timeout_s=170)
    answer = shown_in_all(tmux, "one").partition("verdict: ")[2].splitlines()
    assert max(map(len, answer)) <= 70
    assert max(map(len, answer)) > 60


def test_ctrl_c_leaves_one_line_a_cursor_and_no_container(tmux: Tmux) -> None:
    before = leftovers()
    tmux.start("one", [*TRIAL, "100", *SHORT], 80, 24)
    tmux.until("one", lambda screen: bool(re.search(r" [2-9]/100 containers", screen)), "some containers")
    tmux.press("one", "C-c")
    text = ended(tmux, "one", 1)
    assert "kickwatch: interrupted: everything it started has been removed" in text
    assert "Traceback" not in text
    assert "containers about" not in text
    assert tmux._run("display-message", "-p", "-t", "one", "#{cursor_flag}").strip() == "1"
    assert leftovers() == before
