"""`kickwatch trial` in a real terminal emulator, over a made-up experiment: bar, answer, sizes, colours, Ctrl-C."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from in_tmux import COLOUR, Tmux
from needs import FEATURE

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("tmux") is None, reason=f"{FEATURE} no tmux; test-packages installs it"),
]

ROOT = Path(__file__).parents[3]
# The real command; only the experiment is replaced: 40 containers, ten a second, and a warning in the middle.
SCRIPT = """
import asyncio
from builders import kick
from watching import lives, serial
import kickwatch.commands.one_trial as module
from kickwatch.detect.single import one_shot
from kickwatch.experiment.steps import RunPhase, RunStep
from kickwatch.journal.journal import Event, logger

async def decided(config, count, step, *_, **__):
    step(RunStep(RunPhase.SETUP))
    for done in range(40):
        step(RunStep(RunPhase.CONTAINERS, f"line {done}", done, 40, (40 - done) / 10))
        if done == 20:
            logger().warning(Event.CONFIG_WARNING, what="something that a person should know")
        await asyncio.sleep(0.1)
    trials = [serial(3, number=12)]
    return trials, one_shot(trials)

module.decide = decided
from kickwatch.cli import main
main()
"""
BAR = re.compile(r"measuring \S+ +(\d+)/40 containers about \d+ s left")


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    path = os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "tests" / "support")])
    monkeypatch.setenv("PYTHONPATH", path)
    with Tmux(tmp_path) as one:
        yield one


def whole(tmux: Tmux, *, colour: bool = False) -> str:
    """What the terminal shows, and what has scrolled off."""
    return tmux._run("capture-pane", "-p", "-S", "-", "-t", "one", *(["-e"] if colour else []))


@pytest.mark.parametrize(("columns", "rows", "colour"), [(80, 24, True), (80, 24, False), (200, 50, True)])
def test_bar_then_answer(tmux: Tmux, columns: int, rows: int, colour: bool) -> None:
    tmux.start("one", [sys.executable, "-c", SCRIPT, "trial"], columns, rows, colour=colour)
    bar = tmux.until("one", lambda screen: bool(BAR.search(screen)), "the bar")
    assert len([row for row in bar.splitlines() if "containers" in row]) == 1  # drawn in one place
    tmux.shows("one", "ended with 3")
    lines = whole(tmux).splitlines()
    assert not BAR.search("\n".join(lines))  # it leaves nothing behind
    first = next(index for index, line in enumerate(lines) if line.startswith("verdict: "))
    assert "something that a person should know" in " ".join(" ".join(lines[:first]).split())  # above the bar
    assert lines[first].startswith("verdict: broadcasting (creation_path_broadcasts): creating a container makes")
    assert max(map(len, lines)) <= columns
    shown = whole(tmux, colour=True)
    assert bool(COLOUR.search(shown)) == colour
    assert COLOUR.sub("", shown).split() == " ".join(lines).split()


def test_it_follows_a_terminal_that_is_resized(tmux: Tmux) -> None:
    tmux.start("one", [sys.executable, "-c", SCRIPT, "trial"], 80, 24)
    tmux.until("one", lambda screen: bool(BAR.search(screen)), "the bar")
    for columns in (130, 70):
        tmux.resize("one", columns, 30)
        least = columns - 10
        wide = tmux.until(
            "one",
            lambda screen, least=least: any(len(row) > least and BAR.search(row) for row in screen.splitlines()),
            f"a bar of {columns}",
        )
        assert max(map(len, wide.splitlines())) <= columns
    tmux.shows("one", "ended with 3")
    answer = whole(tmux).partition("verdict: ")[2].splitlines()
    assert 60 < max(map(len, answer)) <= 70


def test_ctrl_c_leaves_one_line_and_a_cursor(tmux: Tmux) -> None:
    tmux.start("one", [sys.executable, "-c", SCRIPT, "trial"], 80, 24)
    tmux.until("one", lambda screen: bool(BAR.search(screen)), "the bar")
    tmux.press("one", "C-c")
    screen = tmux.shows("one", "ended with 1")
    assert "kickwatch: interrupted: everything it started has been removed" in screen
    assert "Traceback" not in screen
    assert not BAR.search(screen)
    assert tmux._run("display-message", "-p", "-t", "one", "#{cursor_flag}").strip() == "1"
