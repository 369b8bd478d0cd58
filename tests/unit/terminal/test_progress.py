"""Progress bars: at a terminal they draw, elsewhere lines or nothing; log records go above them."""

import os
import pty
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest

from kickwatch.experiment.steps import RunPhase, RunStep
from kickwatch.terminal.reproduce_progress import reproduce_progress, time_left_s
from kickwatch.terminal.trial_progress import AboveTheBar, trial_progress


@dataclass
class Shown:
    """A pseudo-terminal: what is written to `stream`, once it is closed."""

    stream: TextIO
    master: int
    reader: threading.Thread
    parts: list[bytes]

    def text(self) -> str:
        self.stream.close()
        self.reader.join(10)
        return b"".join(self.parts).decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    master, slave = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(master, 65536):
                parts.append(part)
        except OSError:  # EIO: closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    shown = Shown(os.fdopen(slave, "w", encoding="utf-8"), master, reader, parts)
    yield shown
    shown.text()
    os.close(master)


STEPS = (
    RunStep(RunPhase.SETUP),
    RunStep(RunPhase.CONTAINERS, "churn window, 23 containers", 0, 23, 20.4),
    RunStep(RunPhase.CONTAINERS, "", 12, 23, 9.6),
    RunStep(RunPhase.CANARY, "canary, 100 memory cgroups", 23, 23, 1.5),
)


def draw(shown: Shown, log: list[AboveTheBar | None]) -> str:
    with trial_progress(shown.stream, log.append) as show:
        for step in STEPS:
            show(step)
        above = log[-1]
        if above is not None:
            above.write("a log record\n")
    return shown.text()


def test_a_bar_has_phase_containers_and_time_left(terminal: Shown) -> None:
    text = draw(terminal, [])
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "engine, probes, control" in plain
    assert re.search(r"measuring +\S+ +12/23 containers +about 10 s left", plain)
    assert "a log record\r\n" in plain
    assert text.endswith(("\x1b[2K", "\x1b[?25h", "\x1b[2K\r"))  # the bar is gone, and the cursor is back
    assert "\x1b[?25h" in text


def test_the_log_is_told_of_the_bar_and_of_its_end(terminal: Shown) -> None:
    log: list[AboveTheBar | None] = []
    draw(terminal, log)
    above, after = log
    assert above is not None
    assert not above.isatty()
    assert after is None


def test_no_color_draws_without_colours(terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*m", draw(terminal, []))


def test_a_dumb_terminal_gets_lines(terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    log: list[AboveTheBar | None] = [None]
    assert draw(terminal, log) == "churn window, 23 containers\r\ncanary, 100 memory cgroups\r\n"


def test_a_log_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, trial_progress(stream, lambda _: pytest.fail("no bar")) as show:
        show(STEPS[1])
    with os.fdopen(reading) as pipe:
        assert pipe.read() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("began_s", "now_s", "done", "of", "left_s"),
    [
        (None, 9.0, 0, 10_000, None),  # the background is measured first
        (5.0, 5.1, 20, 10_000, None),
        (5.0, 7.0, 150, 10_000, None),  # too few
        (5.0, 5.9, 900, 10_000, None),  # too short
        (5.0, 7.0, 2000, 10_000, 8.0),
        (5.0, 7.0, 10, 10, 0.0),
    ],
)
def test_reproduce_promises_no_time_before_it_knows_the_rate(
    began_s: float | None, now_s: float, done: int, of: int, left_s: float | None
) -> None:
    assert time_left_s(began_s, now_s, done, of) == left_s


def test_the_bar_of_reproduce(terminal: Shown) -> None:
    with reproduce_progress(10_000, terminal.stream) as show:
        show("create", 20, 10_000)
        show("create", 5_000, 10_000)
        show("settle", 0, 1)
        show("remove", 0, 1)
        show("done", 1, 1)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.text())
    assert "measuring the background" in plain
    assert "creating" in plain
    assert "50%" in plain
    assert "waiting up to 40 s" in plain
    assert "left" not in plain  # it took less than a second


def test_reproduce_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, reproduce_progress(50, stream) as show:
        for step in (("create", 20, 50), ("create", 50, 50), ("settle", 0, 1), ("remove", 0, 1), ("done", 1, 1)):
            show(*step)
    with os.fdopen(reading) as pipe:
        assert pipe.read().splitlines() == [
            "creating 50 memory cgroups",
            "waiting up to 40 s for the kernel's asynchronous work",
            "removing the memory cgroups, then waiting up to 40 s",
        ]
    assert capsys.readouterr() == ("", "")
