"""Commands that need no node at a real terminal, wide and narrow, with good and bad news: what is shown, the status."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from at_a_terminal import INTERRUPT, KICKWATCH, AtATerminal
from kickwatch.model import Trial
from watching import serial

ROOT = Path(__file__).parents[3]
WIDE_AND_NARROW = pytest.mark.parametrize("columns", [80, 200])
# The real study takes half a minute; this one has its most important tasks, each as small as it can be.
TINY = """
from kickwatch.detect.simulate import study
study.QUICK = ((study.TaskKind.NULL, 50.0, {runs}, 2), (study.TaskKind.EFFECT, study.THRESHOLD, {runs}, 2))
from kickwatch.cli import main
main()
"""


def shown(arguments: Sequence[str | Path], columns: int) -> tuple[int, str]:
    """Exit status, and what was shown."""
    with AtATerminal(arguments, columns=columns) as command:
        return command.ended(), command.text


def recorded(path: Path, *trials: Trial) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in trials))
    return path


@WIDE_AND_NARROW
def test_check_config(columns: int, tmp_path: Path) -> None:
    file = ROOT / "deploy/kickwatch.toml"
    assert shown([*KICKWATCH, "check-config", file], columns) == (0, f"{file}: valid\n")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("trial.window_s = -1\n", encoding="utf-8")
    status, text = shown([*KICKWATCH, "check-config", wrong], columns)
    assert status == 2
    assert text.startswith("kickwatch: ")
    assert "trial.window_s" in text
    assert text.count("\n") == 1


@WIDE_AND_NARROW
def test_replay(columns: int, tmp_path: Path) -> None:
    status, text = shown([*KICKWATCH, "replay", recorded(tmp_path / "good", *[serial()] * 3)], columns)
    assert status == 0
    assert "quiet" in text
    status, text = shown([*KICKWATCH, "replay", recorded(tmp_path / "bad", *[serial(3)] * 3)], columns)
    assert status == 3
    assert "broadcasting" in text
    status, text = shown([*KICKWATCH, "replay", tmp_path / "none"], columns)
    assert status == 1
    assert text.startswith("kickwatch: ")
    assert "Traceback" not in text


@WIDE_AND_NARROW
def test_simulate(columns: int) -> None:
    command = [sys.executable, "-c", TINY.format(runs=8), "simulate", "--quick", "--jobs", "1"]
    status, text = shown(command, columns)
    assert status == 0
    assert "simulating" in text
    assert "attributed" in text
    assert "Traceback" not in text


def test_ctrl_c_ends_a_command_with_one_line() -> None:
    with AtATerminal(
        [sys.executable, "-c", TINY.format(runs=100_000), "simulate", "--quick", "--jobs", "1"]
    ) as command:
        command.shows("simulating")
        command.press(INTERRUPT)
        assert command.ended() == 1
        assert "kickwatch: interrupted" in command.text
        assert "Traceback" not in command.text


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["--help"], 0, "simulate"),
        (["run", "--help"], 0, "--trials"),
        (["nosuch"], 2, "kickwatch: No such command"),
        (["run", "--config", "/nonexistent/kickwatch.toml"], 1, "kickwatch: /nonexistent/kickwatch.toml"),
    ],
)
def test_help_and_complaints(arguments: list[str], status: int, part: str) -> None:
    found, text = shown([*KICKWATCH, *arguments], 80)
    assert (found, part in text, "Traceback" in text) == (status, True, False), text
