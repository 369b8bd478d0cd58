"""The controlling terminal, real ones: open, closed, left by setsid, and none from the start."""

import subprocess
import sys
from pathlib import Path

import pytest

from at_a_terminal import AtATerminal
from kickwatch.process import terminal as module
from kickwatch.process.terminal import Terminal
from slowness import SLOWNESS

# Says what it finds before and after SIGHUP, into a file: its terminal is gone by then.
LOOKS = """
import signal, sys, time
from pathlib import Path
from kickwatch.process.terminal import Terminal
terminal, report = Terminal(), Path(sys.argv[1])
report.write_text(f"{terminal.was_there} {terminal.is_closed()}\\n")
signal.signal(signal.SIGHUP, lambda *_: report.open("a").write(f"{terminal.is_closed()}\\n"))
print("looks", flush=True)
while report.read_text().count("\\n") < 2:
    time.sleep(0.01)
"""


def test_a_terminal_that_closes_is_gone_when_the_signal_comes(tmp_path: Path) -> None:
    report = tmp_path / "report"
    with AtATerminal([sys.executable, "-c", LOOKS, report], errors=tmp_path / "errors") as command:
        command.shows("looks")
        assert report.read_text() == "True False\n"
        command.close()
        assert command.ended() == 0
    assert report.read_text() == "True False\nTrue\n"


def test_a_session_without_a_terminal_has_none_to_lose() -> None:
    script = "from kickwatch.process.terminal import Terminal; t = Terminal(); print(t.was_there, t.is_closed())"
    done = subprocess.run(
        ["setsid", sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30 * SLOWNESS
    )
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("error", [FileNotFoundError(2, ""), OSError(24, "too many"), PermissionError(13, "")])
def test_doubt_means_open(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Terminal()
    one.was_there = True

    def refused(*_: object) -> int:
        raise error

    monkeypatch.setattr(module.os, "open", refused)
    assert not one.is_closed()


def test_looking_takes_no_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        Terminal().is_closed()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
